"""Starts and answers sagas in a transaction of the application's own.

The event is an outbox row of that transaction: it is sent after the commit, and never after a rollback. The commit
wakes the relay of a service that runs in this process. A row of any other process is found by the poll of a running
replica on the same database, `SAGA_RELAY_POLL` later: a second, by default.
"""

from __future__ import annotations

import sys
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session
from sqlalchemy.orm import Session, scoped_session

from toolkit.clock import SystemClock
from toolkit.configuration.settings import load_settings, queue_name
from toolkit.declaration.encoding import encode, own_id, survived
from toolkit.declaration.event_rules import check_saga
from toolkit.declaration.events import Answer, Event, Saga, sagas_started_by
from toolkit.declaration.service import Service
from toolkit.embedding.team_sessions import async_session_of, at_once, outbox_connection, sync_session_of
from toolkit.errors import InvalidAnswerError, NotStartingError, SagaError
from toolkit.messaging.envelope import starting_message
from toolkit.operations import answers
from toolkit.persistence import outbox
from toolkit.persistence.audit_log import Operator
from toolkit.protocol.question_rows import AnswerOutcome
from toolkit.runtime import running


class AnswerRefusedError(SagaError):
    """A step waits no more for an answer; `outcome` has the answer that counts, who gave it and when."""

    def __init__(self, outcome: AnswerOutcome) -> None:
        super().__init__(str(outcome.why))
        self.outcome = outcome


async def start(
    session: AsyncSession | async_scoped_session[AsyncSession], event: Event, *, saga: Saga | None = None
) -> str:
    """Start a saga once the session's transaction commits, and return the saga's id.

        async with session.begin():
            session.add(order)
            await start(session, OrderCreated(order_id=order.id))

    The first event with a saga's id counts: a second one starts no second saga, whatever its content. `saga` is needed
    where several sagas start with such an event. The time of the call is that of the event.

    Raises:
        NotStartingError: the event starts no saga, or several and `saga` names none of them.
        NoOutboxError: it is no session of SQLAlchemy's, or its database has no tables of the toolkit.
        StepError: the event does not survive its own JSON, or is larger than a message may be.
    """
    return await async_session_of(session).run_sync(_start, event, saga)


def start_sync(session: Session | scoped_session[Session], event: Event, *, saga: Saga | None = None) -> str:
    """Start a saga once the transaction of a synchronous session commits, as `start` does; from any thread."""
    return _start(sync_session_of(session), event, saga)


async def answer(
    session: AsyncSession | async_scoped_session[AsyncSession],
    event: Answer,
    *,
    service: Service,
    by: str,
    reason: str = "",
    saga_type: str | None = None,
) -> AnswerOutcome:
    """Answer a step of the service once the session's transaction commits; return what was sent.

        async with session.begin():
            loan.approved_by = officer
            await answer(session, Approved(loan_id=loan.id), service=bank, by=officer)

    The session is one of the service's own database. Its audit keeps `by` and `reason`, and its saga log keeps `by`.
    Of two answers that are sent before the step has taken one, the first that arrives counts.

    Raises:
        AnswerRefusedError: the step waits no more; `outcome` has the answer that counts.
        InvalidAnswerError: no step of the service takes it, or the service does not know the saga.
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
        NoOutboxError: it is no session of SQLAlchemy's, or its database has no tables of the toolkit.
    """
    return await async_session_of(session).run_sync(_answer, event, service, Operator(by, reason), saga_type)


def answer_sync(
    session: Session | scoped_session[Session],
    event: Answer,
    *,
    service: Service,
    by: str,
    reason: str = "",
    saga_type: str | None = None,
) -> AnswerOutcome:
    """Answer a step once the transaction of a synchronous session commits, as `answer` does; from any thread."""
    return _answer(sync_session_of(session), event, service, Operator(by, reason), saga_type)


def _start(session: Session, event: Event, named: Saga | None) -> str:
    saga = _saga_of(type(event), named)
    check_saga(saga)
    saga_id = str(own_id(event, saga))
    now = SystemClock().now()
    body = encode(event, saga=saga, saga_id=saga_id, most=running.largest_message() or sys.maxsize)
    message = starting_message(saga.name, saga_id, event, now=now, body=body)
    at_once(outbox.add(outbox_connection(session), [outbox.event_row(message, type(event), due_at=now)]))
    return saga_id


def _saga_of(event_type: type[Event], named: Saga | None) -> Saga:
    """Return the saga that such an event starts.

    Raises:
        NotStartingError: there is none, or there are several and none of them is named.
    """
    name = event_type.__name__
    if named is not None and named.starts_with is not event_type:
        raise NotStartingError(f"the saga {named.name} starts with {named.starts_with.__name__}, not with {name}")
    sagas = [named] if named else sagas_started_by(event_type)
    if len(sagas) > 1:
        known = ", ".join(saga.name for saga in sagas)
        raise NotStartingError(f"several sagas start with {name}: {known}; name one of them, by `saga=…`")
    if not sagas:
        raise NotStartingError(f"no declared saga starts with {name}: pass the event that `Saga(starts_with=…)` names")
    return sagas[0]


def _answer(session: Session, event: Answer, service: Service, by: Operator, saga_type: str | None) -> AnswerOutcome:
    taken, name = answers.answers_taken(service), type(event).__name__
    steps = [step for step in taken.get(name, ()) if type(event) in step.triggers]
    if not steps:
        raise InvalidAnswerError(answers.not_taken(service.name, name, taken))
    survived(event)
    saga_id = str(own_id(event, steps[0].saga))
    queue = queue_name(running.settings_of(service) or load_settings(), service.name)
    options: Any = {"queue": queue, "now": SystemClock().now(), "saga_type": saga_type}
    outcome = at_once(answers.answer_in(outbox_connection(session), steps, saga_id, event, by, **options))
    if outcome is None or outcome.service != service.name:
        raise InvalidAnswerError(
            f"{service.name} knows no saga {saga_id!r} in the session's database: check the id, "
            f"and that the session is one of the database of {service.name}"
        )
    if outcome.is_refused:
        raise AnswerRefusedError(outcome)
    return outcome
