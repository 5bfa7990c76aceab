"""One run of a schedule: deliveries until all sagas have ended, its faults at their moments, and what is wrong then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from toolkit.declaration.events import Answer, Event
from toolkit.declaration.service import Service
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope
from toolkit.persistence.dead_letters import dead_letters
from toolkit.persistence.outbox import outbox
from toolkit.persistence.saga_log import saga_log
from toolkit.persistence.saga_log_queries import SHOWN
from toolkit.persistence.schema import as_utc
from toolkit.protocol.fence import SagaState
from toolkit.protocol.invariants import violations_of
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import Timeline, merge
from toolkit.testing.cast import Cast
from toolkit.testing.outside_system import OutsideSystem
from toolkit.testing.simulation.faults import Moment, OutsideFailure
from toolkit.testing.simulation.schedule import Schedule
from toolkit.testing.simulation.simulation import Simulation
from toolkit.testing.simulation.wire import Parcel
from toolkit.testing.timeline_text import timeline_of
from toolkit.testing.undone_order import undone_too_early

T = TypeVar("T")

#: So much virtual time after its start every saga has ended: retries that a clock delayed are due, and the watchdogs
#: have aborted what was lost.
_LONGEST = timedelta(minutes=75)
#: The pause in which confirmed rows are deleted, and the one in which a watchdog looks for what is overdue.
_SHORT_PAUSE, _LONG_PAUSE = timedelta(seconds=2), timedelta(minutes=1)
#: More deliveries than any run has; beyond it messages go in circles.
_MOST_DELIVERIES = 3000
_LOG = f"SELECT {', '.join(SHOWN)} FROM {saga_log.name} ORDER BY id"  # noqa: S608 -- names in the code
_ENDED = f"SELECT DISTINCT saga_type, saga_id FROM {saga_log.name} WHERE saga_state IN (?, ?)"  # noqa: S608 -- likewise
_UNSENT = f"SELECT event_type FROM {outbox.name}"  # noqa: S608 -- likewise
_DEAD = f"SELECT event_type, error FROM {dead_letters.name}"  # noqa: S608 -- likewise


@dataclass(frozen=True, slots=True)
class RunResult:
    """What is wrong after a run, what was delivered in it, and the timelines of the sagas with violations."""

    violations: Sequence[str]
    deliveries: Sequence[str]
    stories: Sequence[str] = ()


class SimulatedSagas:
    """The sagas of a run at its end, for a team's own check.

    - `states`: how each saga ended, by its type and id.
    - `databases`: the URLs of the databases, by service.
    """

    def __init__(
        self, world: Simulation, states: Mapping[SagaKey, SagaState | None], provided: Mapping[type, Any]
    ) -> None:
        self._world, self._provided = world, provided
        self.states = states
        self.databases = {name: each.runtime.database.url for name, each in world.processes.items()}

    def rows(self, service: str, query: str, *values: Any) -> list[Any]:
        """Return rows of a service's database, as `sqlite3.Row`."""
        return self._world.rows(service, query, *values)

    def provided(self, kind: type[T]) -> Any:
        """Return the object of this run that was provided under a type: a fake, with its ledger."""
        return self._provided[kind]

    def run(self, coroutine: Any) -> Any:
        """Run a coroutine, a check of `saga verify` say, and return its result."""
        return self._world.loop.complete(coroutine)


#: A team's own check at the end of a run: it raises an AssertionError, or returns what is wrong.
Check = Callable[[SimulatedSagas], Iterable[str] | None]


class Run:
    """Runs a schedule in a world."""

    def __init__(
        self, world: Simulation, schedule: Schedule, services: Sequence[Service], provided: Mapping[type, Any]
    ) -> None:
        self._world, self._schedule, self._provided = world, schedule, provided
        self._cast = Cast(services)
        self._sagas = [self._cast.saga_of(each.events[0]) for each in schedule.sagas]
        self._to_start = list(zip(self._sagas, schedule.sagas, strict=True))
        self._held: list[tuple[datetime, Parcel]] = []
        self._consumed = {event.__name__ for each in services for event in each.consumed()}
        self._answers = {type(each).__name__ for saga in schedule.sagas for each in saga.events[1:]}
        self._paused_at = 0
        self.deliveries: list[str] = []

    def result(self, check: Check | None) -> RunResult:
        """Run it, and return what is wrong."""
        try:
            self._script()
            self._go_on()
        except AssertionError as error:
            return RunResult([f"the run stopped: {error}"], self.deliveries, self._stories(self._sagas))
        violations = list(self._violations())
        wrong = [saga for saga in self._sagas if any(each.startswith(f"{saga[1]}: ") for each in violations)]
        violations += self._of_team(check)
        return RunResult(violations, self.deliveries, self._stories(wrong or self._sagas) if violations else ())

    def _script(self) -> None:
        for system in (each for each in self._provided.values() if isinstance(each, OutsideSystem)):
            for fault in self._schedule.faults:
                if isinstance(fault, OutsideFailure):
                    system.at_call(fault.at, fault.outcome)

    def _begin_sagas(self, number: int) -> None:
        """Send the events of the sagas that start at this moment; once nothing else is left to do, of the next one."""
        is_idle = not self._world.wire.waiting and not self._held
        first = min((start.at for _, start in self._to_start), default=0)
        due = [each for each in self._to_start if each[1].at <= (max(number, first) if is_idle else number)]
        for saga, start in due:
            self._to_start.remove((saga, start))
            for event in start.events:
                self._world.wire.hold(_carried(event, saga, self._world.clock.now()))

    def _go_on(self) -> None:
        start = self._world.clock.now()
        for number in range(1, _MOST_DELIVERIES):
            self._begin_sagas(number)
            moment = Moment(self._world)
            for fault in self._schedule.at(number):
                if not isinstance(fault, OutsideFailure):
                    self.deliveries.append(f"   {fault}")
                    fault.happen(moment)
            while not self._world.wire.waiting:
                self._release()
                self._begin_sagas(number)
                if self._world.wire.waiting:
                    break
                if self._is_at_rest():
                    return
                if self._world.clock.now() - start > _LONGEST:
                    return
                self._pause(number)
            self._deliver(moment, number)
        raise AssertionError(f"messages go in circles: {self._world.wire.waiting[:5]}")

    def _deliver(self, moment: Moment, number: int) -> None:
        waiting = self._world.wire.waiting
        if not waiting:
            return
        first = waiting[moment.picked % len(waiting)]
        if moment.delay:
            waiting.remove(first)
            self._held.append((self._world.clock.now() + moment.delay, first))
            return
        parcels = [first, *(each for each in waiting if each is not first and each.service == first.service)]
        parcels = parcels[: moment.many]
        self.deliveries += [f"{number:>2} {each}" for each in parcels]
        self._world.deliver(*parcels, acknowledge=moment.is_acknowledged)

    def _release(self) -> None:
        """Put the messages whose delay is over into their queues."""
        now = self._world.clock.now()
        self._world.wire.waiting += [parcel for until, parcel in self._held if until <= now]
        self._held = [(until, parcel) for until, parcel in self._held if until > now]

    def _pause(self, number: int) -> None:
        """Let time pass: a little at first, then until a row comes due or a message is released, a minute at most."""
        if self._paused_at != number:
            self._paused_at = number
            self._world.advance(_SHORT_PAUSE)
            return
        now = self._world.clock.now()
        due = [until - now for until, _ in self._held] + [at - now for at in self._world.wake_when_due()]
        self._world.advance(max(_SHORT_PAUSE, min([*due, _LONG_PAUSE])))

    def _is_at_rest(self) -> bool:
        return not self._held and self._world.is_quiet() and not self._unfinished()

    def _unfinished(self) -> list[str]:
        ends = (SagaState.COMPLETED, SagaState.FAILED)
        ended = {tuple(row) for name in self._world.files for row in self._world.rows(name, _ENDED, *ends)}
        return [f"{' '.join(saga)} has not ended" for saga in self._sagas if saga not in ended]

    def _violations(self) -> Iterator[str]:
        for saga in self._sagas:
            entries = self._entries(saga)
            found = violations_of(saga[1], entries, consumed=self._consumed, answers=self._answers)
            yield from (f"{saga[1]}: {each.invariant}: {each.text}" for each in found)
            yield from (f"{saga[1]}: undone in reverse order: {each}" for each in undone_too_early(entries))
        for name in self._world.files:
            for row in self._world.rows(name, _UNSENT):
                yield f"nothing is left over: {name} could not send {row['event_type']}: let a service consume it"
            for row in self._world.rows(name, _DEAD):
                yield f"nothing is left over: {name} has a dead letter, {row['event_type']}: {row['error']}"

    def _of_team(self, check: Check | None) -> list[str]:
        if check is None:
            return []
        states = {saga: Timeline(saga[1], self._entries(saga)).state for saga in self._sagas}
        try:
            return list(check(SimulatedSagas(self._world, states, self._provided)) or ())
        except AssertionError as error:
            return [str(error) or "the test's own check failed"]

    def _entries(self, saga: SagaKey) -> list[LogEntry]:
        logs = []
        for name in self._world.files:
            rows = self._world.rows(name, _LOG)
            entries = [LogEntry.of(dict(row) | {"at": as_utc(row["at"])}) for row in rows]
            logs.append([each for each in entries if (each.saga_type, each.saga_id) == saga])
        return merge(logs)

    def _stories(self, sagas: Iterable[SagaKey]) -> list[str]:
        return [timeline_of(saga, self._entries(saga), self._world.clock.now()) for saga in sagas]


def _carried(event: Event, saga: SagaKey, now: datetime) -> Any:
    kind = type(event)
    event_id = new_id() if isinstance(event, Answer) else derived_id(*saga, kind.__name__)
    return Envelope.of(kind, event_id=event_id, saga=saga, occurred_at=now).carry(event)
