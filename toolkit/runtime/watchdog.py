"""The watchdog: finds overdue steps, logs them, sends their events again as nudges, and finally requests an abort.

The clock decides only when to send. A nudge is a duplicate, which the fence ignores; an abort fences the steps that
have not begun, and changes no other. So a wrong clock makes the watchdog send more or less, and corrupts no saga.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, timedelta

import structlog
from sqlalchemy.ext.asyncio import AsyncConnection

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import Settings
from toolkit.declaration.events import is_saga_id
from toolkit.declaration.service import Service
from toolkit.foreign_code.containment import contain
from toolkit.ids import new_id, trace_facts
from toolkit.messaging.envelope import WireMessage, abort_request
from toolkit.observability.metrics import Meter
from toolkit.persistence import (
    emitted_events,
    log_entries,
    outbox,
    overdue_search,
    overdue_steps,
    saga_log,
    saga_waits,
)
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import complain
from toolkit.persistence.emitted_events import EmittedEvent
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.overdue_search import Found
from toolkit.persistence.saga_ends import close_sagas, ends_of
from toolkit.persistence.saga_log import Entry
from toolkit.persistence.saga_log_streams import readable_streams
from toolkit.persistence.unreadable_rows import REST, set_aside
from toolkit.protocol.fence import Note
from toolkit.protocol.keys import StreamKey
from toolkit.protocol.pending_rows import OverdueStep
from toolkit.runtime.after_commit import log_contradiction
from toolkit.runtime.relay import Relay

log = structlog.get_logger("toolkit")

#: The longest pause between two nudges: one an hour costs next to nothing.
_LONGEST_PAUSE = timedelta(hours=1)
#: More doublings would overflow a timedelta; after fewer the pause has reached an hour.
_MOST_DOUBLINGS = 20
#: So many nudges of a step are noted in the log; by then they come every hour. The table of overdue steps counts all.
_MOST_NOTES = 8

#: The fields of a log line.
Facts = dict[str, str | None]


class Watchdog:
    """Watches the unfinished sagas of one service."""

    def __init__(self, service: Service, settings: Settings, *, database: Database, relay: Relay, clock: Clock) -> None:
        self._service = service
        self._settings = settings
        self._database = database
        self._relay = relay
        self._clock = clock
        self._stopping = asyncio.Event()
        self._emitted = service.sendable()
        self._final_steps = service.final_steps
        self._meter = Meter(service)
        self.is_healthy = True

    async def run(self) -> None:
        """Sweep at each interval of `SAGA_WATCH_EVERY` until `stop`."""
        while not self._stopping.is_set():
            try:
                await contain("the watchdog", self.sweep())
                self.is_healthy = True
            except Exception as error:  # noqa: BLE001 -- the watchdog continues after an outage of its database
                self.is_healthy = False
                complain("watchdog can't reach its database", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(self._settings.watch_every.total_seconds()):
                    await self._stopping.wait()

    def stop(self) -> None:
        """Let `run` return after the current sweep."""
        self._stopping.set()

    async def sweep(self) -> None:
        """Find the steps that became overdue, and nudge those that are due."""
        now = self._clock.now()
        async with self._database.transaction() as session:
            connection = await session.connection()
            found = await overdue_search.find(connection, before=now - self._settings.overdue_after, now=now)
            failpoints.here("overdue-found", (step.saga_state for step in found.steps))
            await close_sagas(connection, ends_of([(new_id(), ended) for ended in found.ends], at=now))
            due = await overdue_steps.claim(connection, now=now, until=now + self._settings.nudge_every)
            waiting = await self._still_waiting(connection, due)
            await overdue_steps.postpone(connection, waiting, [self._next_nudge(step, now) for step in waiting])
            rows, broken = await self._nudge(connection, waiting, now)
            await overdue_steps.postpone(connection, broken, [now + REST] * len(broken))
            traces = await _traces(connection, found.steps)
            nudges_and_aborts = [(self._note(step, Note.NUDGED, now), step.nudges <= _MOST_NOTES) for step in waiting]
            to_abort = [step for step in waiting if self._is_due_for_abort(step, now)]
            nudges_and_aborts += [(self._note(step, Note.ABORTED, now), not step.aborted) for step in to_abort]
            notes = [self._note(step, Note.OVERDUE, now) for step in found.steps]
            await saga_log.append(connection, [*notes, *(note for note, is_noted in nudges_and_aborts if is_noted)])
            await outbox.add(connection, rows)
        self._meter.entries([*notes, *(note for note, _ in nudges_and_aborts)])
        self._relay.hand_over(rows, [])
        self._log(found, traces)

    def _log(self, found: Found, traces: dict[StreamKey, Facts]) -> None:
        for ended in found.ends:
            sagas = len(ended.completed) + len(ended.failed)
            log.warning(
                "end of sagas was not received; it is taken from their log", saga_type=ended.saga_type, sagas=sagas
            )
        for each in found.contradictions:
            self._meter.contradiction(each.saga_type, each.step)
            log_contradiction((each.saga_type, each.saga_id), each.step, each.error)
        for step in found.steps:
            saga = {"saga_type": step.saga_type, "saga_id": step.saga_id}
            facts = saga | {"step": step.step, "since": step.since.isoformat()}
            log.error("saga is overdue", **facts, **traces.get(step.key, {}))

    async def _still_waiting(self, connection: AsyncConnection, due: Sequence[OverdueStep]) -> list[OverdueStep]:
        """Return the steps that did not move and whose sagas neither ended nor wait, and forget the others."""
        streams, broken = await readable_streams(connection, [step.saga_id for step in due])
        ended = {key[:2] for key, stream in streams.items() if stream.end}
        stands = {key: stream.position for key, stream in streams.items()}
        held = await saga_waits.waiting(connection, [step.saga for step in due], now=self._clock.now())
        idle = ended | held
        waiting = [step for step in due if step.saga not in idle and stands.get(step.key) == step.position]
        await overdue_steps.forget(
            connection, [step for step in due if step not in waiting and step.saga not in broken]
        )
        return waiting

    async def _nudge(
        self, connection: AsyncConnection, steps: Sequence[OverdueStep], now: datetime
    ) -> tuple[list[OutboxRow], list[OverdueStep]]:
        """Return the steps' events as nudges, the aborts that are due, and the steps whose entries can't be read."""
        emitted = await emitted_events.at(connection, [(*step.key, step.position) for step in steps])
        to_abort = [step for step in steps if self._is_due_for_abort(step, now)]
        await overdue_steps.mark_aborted(connection, to_abort)
        # This release may not declare an event that an older one emitted; then only the abort is left.
        sent = {each.key: self._sent(each) for each in emitted if each.emitted_type in self._emitted}
        wires = [wire for wire in sent.values() if wire]
        causes = {each.key: each for each in emitted}
        aborts = [_abort(step, causes.get(step.key), now) for step in to_abort]
        wires += [wire for wire in aborts if wire]
        due_at = self._relay.due_if_handed_over()
        rows = [OutboxRow(id=new_id(), message=wire, due_at=due_at) for wire in wires]
        return rows, [step for step in steps if sent.get(step.key, True) is None]

    def _sent(self, emitted: EmittedEvent) -> WireMessage | None:
        """Return the event as it was sent, as a nudge; None where its entry can't be read."""
        try:
            _check_readable(emitted)
            kind = self._emitted[emitted.emitted_type]
            return emitted.as_sent(kind, nudge=new_id(), final_steps=self._final_steps)
        except Exception as error:  # noqa: BLE001 -- an unreadable entry must not prevent the nudges of other sagas
            set_aside("saga_log", error, saga_type=emitted.saga_type, saga_id=emitted.saga_id, step=emitted.step)
            return None

    def _is_due_for_abort(self, step: OverdueStep, now: datetime) -> bool:
        return now - step.since >= self._settings.abort_after

    def _next_nudge(self, step: OverdueStep, now: datetime) -> datetime:
        """Return when the step is nudged next: each pause is twice the one before, but none delays the first abort."""
        first = self._settings.nudge_every
        doubled = first * (1 << min(step.nudges - 1, _MOST_DOUBLINGS))
        pause = min(doubled, max(first, _LONGEST_PAUSE))
        abort_at = step.since + self._settings.abort_after
        return min(now + pause, abort_at) if abort_at > now else now + pause

    def _note(self, step: OverdueStep, note: Note, now: datetime) -> Entry:
        return log_entries.note(
            step.key,
            note,
            service=self._service.name,
            state=step.state,
            saga_state=step.saga_state,
            attempt=step.nudges or 1,
            at=now,
        )


async def _traces(connection: AsyncConnection, steps: Sequence[OverdueStep]) -> dict[StreamKey, dict[str, str | None]]:
    """Return the trace fields of a log line, by saga and step."""
    emitted = await emitted_events.at(connection, [(*step.key, step.position) for step in steps])
    return {each.key: trace_facts(each.traceparent) for each in emitted}


def _check_readable(emitted_event: EmittedEvent) -> None:
    """Raise a ValueError if the next service could not read the event, which would become its dead letter."""
    if not is_saga_id(emitted_event.saga_id):
        raise ValueError(f"{emitted_event.saga_id!r} is no saga's id")
    if not isinstance(json.loads(emitted_event.emitted_body), dict):
        raise ValueError("the emitted body is no JSON object")


def _abort(step: OverdueStep, cause: EmittedEvent | None, now: datetime) -> WireMessage | None:
    """Return the abort of a step's saga; None if the saga's id is invalid, because no service accepts such an id.

    `cause` is the event that the step has emitted, if any.
    """
    reason, trace = f"overdue since {step.since}", cause.traceparent if cause else None
    began = cause.started_at if cause and cause.started_at else step.since
    try:
        return abort_request(step.saga_type, step.saga_id, reason, now=now, traceparent=trace, started_at=began)
    except ValueError as error:
        set_aside("saga_overdue", error, saga_type=step.saga_type, saga_id=step.saga_id, step=step.step)
        return None
