"""In any order of events and faults, a trip is done as a whole or not at all.

Hypothesis chooses the steps and shrinks a failure to a short sequence; it prints the steps and how to replay them.
`STATE_MACHINE_EXAMPLES` is the number of runs; `STATE_MACHINE_SHRINKS=no` reports the first failure without shrinking.
"""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from tests.conformance.world import message
from tests.example_sagas.travel import TripRequested
from tests.state_machine import evidence as evidence_of
from tests.state_machine.trip_world import OPERATOR, TripWorld
from toolkit.declaration.events import AbortRequested
from toolkit.ids import new_id
from toolkit.operations import sagas
from toolkit.testing.simulation.wire import STUMBLES, Parcel

EXAMPLES = int(os.environ.get("STATE_MACHINE_EXAMPLES", "200"))
PHASES = [phase for phase in Phase if phase is not Phase.shrink or os.environ.get("STATE_MACHINE_SHRINKS") != "no"]
#: More trips add no new way for two of them to meet, and make the other steps rarer.
MOST_TRIPS = 3
SERVICES = ("hotel", "flight", "desk")
#: The faults of the next call of each step: only some steps may refuse, and only outside calls can lack an answer.
REFUSABLE = ("book_room", "book_flight", "issue_ticket")
CALLS = (*REFUSABLE, "cancel_room", "cancel_flight", "apologize", "book_flight answers", "cancel_flight answers")
TROUBLES = st.one_of(
    st.tuples(st.sampled_from(REFUSABLE), st.just("refuses")),
    st.tuples(st.sampled_from(CALLS), st.sampled_from(["fails", "always fails", "takes long"])),
)
MOMENTS = [timedelta(milliseconds=30), timedelta(seconds=1), timedelta(seconds=6), timedelta(minutes=1)]
DEADLINES = st.sampled_from([None, timedelta(seconds=5), timedelta(minutes=2)])
ANY = st.integers(0, 30)


class TripMachine(TripWorld):
    """Up to three trips at once, through three services that may crash, over a wire that keeps no order."""

    @initialize(withins=st.lists(DEADLINES, min_size=1, max_size=2), troubles=st.lists(TROUBLES, max_size=6))
    def begin(self, withins: list[timedelta | None], troubles: list[tuple[str, str]]) -> None:
        """Start the services, request trips, and plan faults."""
        self.open()
        for within in withins:
            self.request_a_trip(within)
        for trouble in troubles:
            self.plan_trouble(trouble)

    # -- the clients, the operators and the time -------------------------------------------------------------

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
        now = self.world.clock.now()
        self.world.processes[service].do(sagas.replay(runtime.database, runtime.service, trip, OPERATOR, now=now))
        self.world.settle()

    # -- the wire --------------------------------------------------------------------------------------------

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

    # -- the services ----------------------------------------------------------------------------------------

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

    # -- the end ---------------------------------------------------------------------------------------------

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        with self.resources:
            self.come_to_rest()
            self.all_that_must_hold_holds()
            for trip in {*self.requests, *self.evidence.trips}:
                evidence_of.check_all_or_nothing(self.evidence, trip)


def chosen(choices: list[Any], number: int) -> Any:
    """Return one of the choices that exist now."""
    return choices[number % len(choices)]


TestTripMachine = pytest.mark.timeout(240 if EXAMPLES <= 200 else 0)(TripMachine.TestCase)
TestTripMachine.settings = settings(
    max_examples=EXAMPLES,
    stateful_step_count=50 if EXAMPLES > 200 else 25,
    deadline=None,
    phases=PHASES,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
