"""Whatever happens, in whatever order, a trip is done as a whole or not at all: shown by trying.

Hypothesis chooses the steps and shrinks a failure to the shortest way there; it prints the steps and what replays them.
`STATE_MACHINE_EXAMPLES` says how many runs there are; with `STATE_MACHINE_SHRINKS=no` the first failure will do.
"""

from __future__ import annotations

import asyncio
import atexit
import os
import shutil
import tempfile
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.conformance.world import message
from tests.example_sagas.travel import Script, TripRequested, services
from tests.simulation.simulation import Simulation, simulation
from tests.simulation.wire import STUMBLES, Parcel
from tests.state_machine import evidence as evidence_of
from tests.state_machine.evidence import Evidence
from toolkit import Settings
from toolkit.declaration.events import AbortRequested
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters, sagas
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "200"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("STATE_MACHINE_SHRINKS") != "no"]
#: A file that is synchronized on a disk takes longer than all else; there the same calls are made, and cost nothing.
MEMORY = Path("/dev/shm")
#: More trips than that add no new way for two of them to meet, and make the rest rarer.
MOST_TRIPS = 3
#: So many minutes after the last fault everything has come to rest: the watch's abort, and the way back.
LAST_MINUTES = 30

SERVICES = ("hotel", "flight", "desk")
#: What may befall the next call of each step: not everyone may refuse, and only what is called outside gets no answer.
REFUSABLE = ("book_room", "book_flight", "issue_ticket")
CALLS = (*REFUSABLE, "cancel_room", "cancel_flight", "apologize", "book_flight answers", "cancel_flight answers")
TROUBLES = st.one_of(
    st.tuples(st.sampled_from(REFUSABLE), st.just("refuses")),
    st.tuples(st.sampled_from(CALLS), st.sampled_from(["fails", "always fails", "takes long"])),
)
MOMENTS = [timedelta(milliseconds=30), timedelta(seconds=1), timedelta(seconds=6), timedelta(minutes=1)]
DEADLINES = st.sampled_from([None, timedelta(seconds=5), timedelta(minutes=2)])
ANY = st.integers(0, 30)
OPERATOR = Operator(name="Grace", reason="to see whether it does harm")


class TripMachine(RuleBasedStateMachine):
    """Up to three trips at once, through three services that may crash upon a wire that keeps no order."""

    @initialize(withins=st.lists(DEADLINES, min_size=1, max_size=2), troubles=st.lists(TROUBLES, max_size=6))
    def begin(self, withins: list[timedelta | None], troubles: list[tuple[str, str]]) -> None:
        """Start the services, each upon an empty database; request trips, and plan what goes wrong."""
        self.resources = ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="trips-", dir=MEMORY if MEMORY.exists() else None))
        self.resources.callback(shutil.rmtree, folder)
        self.script = Script()
        self.world: Simulation = self.resources.enter_context(
            simulation(services(self.script), settings_in(folder), template=empty_files())
        )
        self.evidence = Evidence(self.world)
        self.requests: dict[str, WireMessage] = {}
        self.requested: dict[str, datetime] = {}
        self.deadlines: dict[str, datetime] = {}
        self.open_calls: list[asyncio.Future[None]] = []
        for within in withins:
            self.request_a_trip(within)
        for trouble in troubles:
            self.plan_trouble(trouble)

    # -- what clients, operators and time do -------------------------------------------------------------------

    @precondition(lambda self: len(self.requests) < MOST_TRIPS)
    @rule(within=DEADLINES)
    def request_a_trip(self, within: timedelta | None) -> None:
        trip, now = f"trip-{len(self.requests) + 1}", self.world.clock.now()
        facts = {"deadline": now + within} if within else {}
        self.requests[trip] = message(TripRequested(trip_id=trip), trip, occurred_at=now, **facts)
        self.requested[trip] = now
        self.deadlines |= {trip: now + within} if within else {}
        self.world.wire.hold(self.requests[trip])

    @precondition(lambda self: self.requests)
    @rule(number=ANY)
    def abort_a_trip(self, number: int) -> None:
        trip = chosen(list(self.requests), number)
        event = AbortRequested(saga_type="trip", saga_id=trip, reason="the customer has cancelled")
        self.world.wire.hold(message(event, trip, event_id=new_id(), occurred_at=self.world.clock.now()))

    @rule(by=st.sampled_from(MOMENTS))
    def time_passes(self, by: timedelta) -> None:
        self.world.advance(by)

    @precondition(lambda self: self.dead_letters())
    @rule(number=ANY)
    def redrive_a_dead_letter(self, number: int) -> None:
        self.redrive(*chosen(self.dead_letters(), number))

    @precondition(lambda self: self.requests)
    @rule(number=ANY, service=st.sampled_from(SERVICES))
    def replay_a_trip(self, number: int, service: str) -> None:
        trip, runtime = chosen(list(self.requests), number), self.world.processes[service].runtime
        emitted = {event.__name__: event for each in runtime.service.participants for event in each.emitted()}
        now = self.world.clock.now()
        self.world.processes[service].do(sagas.replay(runtime.database, emitted, trip, OPERATOR, now=now))
        self.world.settle()

    # -- what the wire does ------------------------------------------------------------------------------------

    @precondition(lambda self: self.waiting)
    @rule(how_many=st.integers(1, 6))
    def deliver_the_oldest(self, how_many: int) -> None:
        for _ in range(how_many):
            if self.waiting:
                self.world.deliver(self.waiting[0])

    @precondition(lambda self: self.waiting)
    @rule(number=ANY)
    def deliver_any(self, number: int) -> None:
        self.world.deliver(chosen(self.waiting, number))

    @precondition(lambda self: self.waiting)
    @rule(numbers=st.lists(ANY, min_size=2, max_size=4))
    def deliver_several_at_once(self, numbers: list[int]) -> None:
        self.world.deliver(*dict.fromkeys(chosen(self.waiting, number) for number in numbers))

    @precondition(lambda self: self.waiting)
    @rule(number=ANY)
    def deliver_and_lose_the_acknowledgement(self, number: int) -> None:
        self.world.deliver(chosen(self.waiting, number), acknowledge=False)

    @precondition(lambda self: self.world.wire.seen)
    @rule(number=st.integers(0, 100))
    def duplicate_a_message(self, number: int) -> None:
        original = chosen(self.world.wire.seen, number)
        self.waiting.append(Parcel(original.service, original.message))

    @rule(stumbles=st.lists(st.sampled_from(STUMBLES), min_size=1, max_size=3))
    def let_the_next_publishes_stumble(self, stumbles: list[str]) -> None:
        self.world.wire.stumbles.extend(stumbles)

    # -- what the services do ----------------------------------------------------------------------------------

    @rule(service=st.sampled_from(SERVICES))
    def crash(self, service: str) -> None:
        self.world.crash(service)

    @rule(trouble=TROUBLES)
    def plan_trouble(self, trouble: tuple[str, str]) -> None:
        call, what = trouble
        lines = {
            "refuses": ["refuse"],
            "fails": [ConnectionError("no answer")],
            "always fails": [ConnectionError("no answer")] * 3,
            "takes long": [self.wait_for_the_test],
        }
        self.script.plan(call, *lines[what])

    @precondition(lambda self: self.under_way())
    @rule(number=ANY, fails=st.booleans())
    def answer_a_call(self, number: int, fails: bool) -> None:
        self.answer(chosen(self.under_way(), number), ConnectionError("hung up") if fails else None)

    # -- what holds after every step ---------------------------------------------------------------------------

    @invariant()
    def all_that_must_hold_holds(self) -> None:
        if self.evidence.look():
            evidence_of.check_logs(self.evidence)
            evidence_of.check_effects(self.evidence)
            evidence_of.check_order(self.evidence)
            evidence_of.check_ends(self.evidence)
            evidence_of.check_causes(self.evidence, {str(wire.message_id) for wire in self.requests.values()})
            evidence_of.check_deadlines(self.evidence, self.requested, self.deadlines)
        evidence_of.check_airline(self.evidence, self.script.booked)

    # -- and in the end ----------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        with self.resources:
            self.come_to_rest()
            self.all_that_must_hold_holds()
            for trip in {*self.requests, *self.evidence.trips}:
                evidence_of.check_all_or_nothing(self.evidence, trip)

    def come_to_rest(self) -> None:
        """Deliver all, answer all and redrive all; of new trouble there is none, but what is planned still comes."""
        for _ in range(2 * LAST_MINUTES):
            for call in self.under_way():
                self.answer(call, None)
            for letter in self.dead_letters():
                self.redrive(*letter)
            while self.waiting:
                self.world.deliver(self.waiting[0])
                self.all_that_must_hold_holds()
            if self.world.is_quiet() and self.all_have_ended():
                return
            self.world.advance(timedelta(seconds=30))
            self.all_that_must_hold_holds()
        raise AssertionError(f"no rest after {LAST_MINUTES} minutes: {self.waiting}, {self.evidence.states}")

    # -- the verbs of the above --------------------------------------------------------------------------------

    @property
    def waiting(self) -> list[Parcel]:
        return self.world.wire.waiting

    async def wait_for_the_test(self) -> None:
        call = asyncio.get_running_loop().create_future()
        self.open_calls.append(call)
        await call

    def under_way(self) -> list[asyncio.Future[None]]:
        """The calls that wait for their answer; a crash has ended some."""
        self.open_calls = [call for call in self.open_calls if not call.done()]
        return self.open_calls

    def answer(self, call: asyncio.Future[None], error: Exception | None) -> None:
        if error:
            call.set_exception(error)
        else:
            call.set_result(None)
        self.world.settle()

    def dead_letters(self) -> list[tuple[str, str]]:
        """The services that have dead letters, with the letters' ids."""
        query = "SELECT id FROM dead_letters ORDER BY id"
        return [(name, row["id"]) for name in self.world.files for row in self.world.rows(name, query)]

    def redrive(self, service: str, letter: str) -> None:
        """Have a letter's message sent to its service again; the service's relay finds it at its next poll."""
        runtime, now = self.world.processes[service].runtime, self.world.clock.now()
        which = Selection(ids=(letter,))
        self.world.processes[service].do(
            dead_letters.redrive(runtime.database, which, OPERATOR, queue=runtime.queue, now=now)
        )
        self.world.settle()

    def all_have_ended(self) -> bool:
        self.evidence.look()
        ends = {("issue_ticket", "confirmed"), ("apologize", "completed")}
        ended = {trip for (trip, step), state in self.evidence.states.items() if (step, state) in ends}
        return ended >= {*self.requests, *self.evidence.trips}


def chosen(choices: list[Any], number: int) -> Any:
    """Return one of so many as there are just now."""
    return choices[number % len(choices)]


def settings_in(folder: Path) -> Settings:
    """Return settings with few polls, since each is a transaction, and a watch that soon asks."""
    return Settings(
        data_dir=folder,
        relay_poll=timedelta(seconds=30),
        watch_every=timedelta(seconds=30),
        overdue_after=timedelta(minutes=1),
        nudge_every=timedelta(minutes=1),
        abort_after=timedelta(minutes=4),
    )


@cache
def empty_files() -> Path:
    """Return a folder with a file per service in which all tables are made, and which all runs begin with."""
    folder = Path(tempfile.mkdtemp(prefix="no-trips-", dir=MEMORY if MEMORY.exists() else None))
    atexit.register(shutil.rmtree, folder)
    with simulation(services(Script()), settings_in(folder)):
        return folder


TestTripMachine = pytest.mark.timeout(240 if EXAMPLES <= 200 else 0)(TripMachine.TestCase)
TestTripMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50 if EXAMPLES > 200 else 25,
    deadline=None,
    phases=PHASES,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
