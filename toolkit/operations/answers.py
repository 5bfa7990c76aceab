"""Answers a step of one service in its database, whether the service runs or not.

The answer is an outbox row to the service itself, in one transaction with its audit entry; the service's own relay
sends it. The fence decides between two answers, and between an answer and the deadline.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit.declaration.events import Answer, SagaState
from toolkit.declaration.participant import Step
from toolkit.declaration.service import Service
from toolkit.declaration.text_redaction import redact
from toolkit.declaration.unknown_fields import unknown_fields
from toolkit.errors import AmbiguousSagaError, InvalidAnswerError
from toolkit.ids import new_id
from toolkit.messaging.envelope import LONGEST_TEXT, Envelope
from toolkit.persistence import audit_log, outbox, saga_log_queries
from toolkit.persistence.audit_log import Change, Operator
from toolkit.persistence.database import Database
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.saga_log import ArrivalEntry
from toolkit.protocol.fence import StepState
from toolkit.protocol.joins import Gate
from toolkit.protocol.question_rows import ANSWERED, REFUSED, SENT, AnswerOutcome

#: How long an operator waits for the step to take the answer: its relay looks for due rows each second, by default.
_PATIENCE = timedelta(seconds=5)
#: How often the log is read meanwhile.
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class _Decision:
    """Why a step waits no more; with the entry of the answer that it took, if it took one."""

    why: str
    entry: ArrivalEntry | None = None


def answers_taken(service: Service) -> dict[str, list[Step]]:
    """Return the answers that a service's steps take, by name, each with these steps."""
    taken: dict[str, list[Step]] = {}
    for step in service.steps:
        for event in step.triggers:
            if issubclass(event, Answer):
                taken.setdefault(event.__name__, []).append(step)
    return taken


def not_taken(service: str, name: str, taken: Iterable[str]) -> str:
    """Return the fault of an answer that no step of the service takes."""
    return f"{service} takes no answer {name!r}; it takes: {', '.join(taken) or 'none'}"


def build(steps: Sequence[Step], name: str, saga_id: str, fields: Mapping[str, Any]) -> Answer:
    """Return the answer of this name with these fields, and the saga's id in its place.

    Raises:
        InvalidAnswerError: a field is missing, unknown, or has a value that is not allowed.
    """
    event_type = next(event for event in steps[0].triggers if event.__name__ == name)
    assert issubclass(event_type, Answer)  # noqa: S101 -- for the type checker; `answers_taken` returned it
    id_field = steps[0].saga.id_field
    if fields.get(id_field, saga_id) != saga_id:
        raise InvalidAnswerError(f"{id_field} is the id of another saga than {saga_id}: leave it out")
    body = json.dumps({**fields, id_field: saga_id})
    try:
        event = event_type.model_validate_json(body)
    except ValidationError as error:
        faults = error.errors(include_url=False, include_input=False)
        text = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in faults)
        raise InvalidAnswerError(f"this is no {name}: {redact(event_type, body, text)}") from error
    if unknown := unknown_fields(fields, event):
        raise InvalidAnswerError(f"{name} has no field {', '.join(unknown)}")
    return event


async def answer(
    database: Database,
    steps: Sequence[Step],
    saga_id: str,
    event: Answer,
    by: Operator,
    *,
    queue: str,
    now: datetime,
    saga_type: str | None = None,
) -> AnswerOutcome | None:
    """Send an answer to the steps of one service that take it; refused where none of them waits for it.

    Return None where the service does not know the saga: an answer to a mistyped id would wait for ever.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id.
    """
    async with database.transaction() as session:
        connection = await session.connection()
        return await answer_in(connection, steps, saga_id, event, by, queue=queue, now=now, saga_type=saga_type)


async def answer_in(
    connection: AsyncConnection,
    steps: Sequence[Step],
    saga_id: str,
    event: Answer,
    by: Operator,
    *,
    queue: str,
    now: datetime,
    saga_type: str | None = None,
) -> AnswerOutcome | None:
    """Send an answer as `answer` does, in a transaction that is open."""
    entries = await saga_log_queries.timeline(connection, saga_id, saga_type)
    if (found := _saga_type(saga_id, entries, steps)) is None:
        return None
    entries = [each for each in entries if each.saga_type == found]
    steps = [step for step in steps if step.saga.name == found]
    step = next((each for each in steps if not _decision(each, event, entries, now)), steps[0])
    name = type(event).__name__
    outcome = AnswerOutcome(
        service=entries[-1].service, saga_type=found, saga_id=saga_id, step=step.name, event_type=name,
        event_id=None, outcome=SENT, why=None, decided_with=None, decided_by=None, decided_at=None,
    )  # fmt: skip
    if decision := _decision(step, event, entries, now):
        return _refused(outcome, decision)
    outcome = replace(outcome, event_id=new_id())
    envelope = _envelope(event, outcome, entries, by, now)
    await outbox.add(connection, [OutboxRow(id=new_id(), message=envelope.carry(event), due_at=now, destination=queue)])
    await audit_log.add(connection, [Change("answer", name, found, saga_id)], by, now=now)
    return outcome


def _saga_type(saga_id: str, entries: Sequence[ArrivalEntry], steps: Sequence[Step]) -> str | None:
    """Return the type of the saga with these entries that one of the steps takes part in; None of an unknown one.

    Raises:
        AmbiguousSagaError: there are several.
    """
    types = sorted({entry.saga_type for entry in entries} & {step.saga.name for step in steps})
    if len(types) > 1:
        raise AmbiguousSagaError(saga_id, types)
    return types[0] if types else None


async def give(
    database: Database,
    steps: Sequence[Step],
    saga_id: str,
    event: Answer,
    by: Operator,
    *,
    within: timedelta = _PATIENCE,
    **facts: Any,
) -> AnswerOutcome | None:
    """Send an answer as `answer` does, and return what became of it."""
    sent = await answer(database, steps, saga_id, event, by, **facts)
    return sent and await outcome_of(database, steps, event, sent, within=within)


async def outcome_of(
    database: Database, steps: Sequence[Step], event: Answer, sent: AnswerOutcome, *, within: timedelta = _PATIENCE
) -> AnswerOutcome:
    """Return what became of an answer that was sent, as soon as the log shows it; as it was if it does not in time."""
    if sent.is_refused:
        return sent
    step = next(each for each in steps if (each.saga.name, each.name) == (sent.saga_type, sent.step))
    until = time.monotonic() + within.total_seconds()
    while True:
        async with database.reading() as connection:
            entries = await saga_log_queries.timeline(connection, sent.saga_id, sent.saga_type)
        decision = _decision(step, event, entries, None)
        if decision and decision.entry and decision.entry.event_id == sent.event_id:
            return _with(replace(sent, outcome=ANSWERED), decision.entry)
        if decision:
            return _refused(sent, decision)
        if time.monotonic() > until:
            why = f"{step.name} has not taken it yet; `saga trace {sent.saga_id}` shows when it does"
            return replace(sent, why=why)
        await asyncio.sleep(_PAUSE)


def _envelope(
    event: Answer, outcome: AnswerOutcome, entries: Sequence[ArrivalEntry], by: Operator, now: datetime
) -> Envelope:
    # The deadline of an arrival is that of its step, not of the saga.
    last = entries[-1]
    return Envelope.of(
        type(event),
        event_id=outcome.event_id,
        saga=(outcome.saga_type, outcome.saga_id),
        occurred_at=now,
        deadline=next((each.deadline for each in reversed(entries) if each.to_state != StepState.GATHERING), None),
        traceparent=last.traceparent,
        started_at=last.started_at,
        answered_by=_printable(by.name),
    )


def _decision(step: Step, event: Answer, entries: Sequence[ArrivalEntry], now: datetime | None) -> _Decision | None:
    """Return why the step does not wait for this answer, or None while it does, or has not begun."""
    moves = [each for each in entries if each.step == step.name and each.position]
    gate = Gate({name: [each.__name__ for each in events] for name, events in step.slots.items()})
    rivals = gate.rivals(type(event).__name__)
    # An entry without a body did not take its event: it came after the deadline, say.
    if taken := next((each for each in moves if each.event_type in rivals and each.event_body is not None), None):
        who = f" by {taken.event_by}" if taken.event_by else ""
        return _Decision(f"{step.name} was answered with {taken.event_type}{who} at {_time(taken.at)}", taken)
    if moves and (last := moves[-1]).to_state != StepState.GATHERING:
        reason = f": {last.error}" if last.error else ""
        return _Decision(f"{step.name} waits no more: it is {last.to_state} since {_time(last.at)}{reason}")
    if end := next((each.saga_state for each in entries if SagaState(each.saga_state).is_ended), None):
        return _Decision(f"the saga has ended ({end})")
    deadline = moves[0].deadline if moves and step.is_refusable else None
    if now and deadline and deadline <= now:
        return _Decision(f"the deadline of {step.name} passed at {_time(deadline)}")
    return None


def _refused(outcome: AnswerOutcome, decision: _Decision) -> AnswerOutcome:
    refused = replace(outcome, outcome=REFUSED, why=decision.why)
    return _with(refused, decision.entry) if decision.entry else refused


def _with(outcome: AnswerOutcome, entry: ArrivalEntry) -> AnswerOutcome:
    return replace(outcome, decided_with=entry.event_type, decided_by=entry.event_by, decided_at=entry.at)


def _printable(name: str) -> str:
    """Return an operator's name as a header can hold it."""
    return "".join(each if each.isprintable() else "?" for each in name)[:LONGEST_TEXT]


def _time(moment: datetime) -> str:
    return moment.isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
