"""The trips' services in a simulation, for a state machine: its verbs, its invariants, and its end."""

from __future__ import annotations

import asyncio
import atexit
from contextlib import ExitStack
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path

from hypothesis.stateful import RuleBasedStateMachine, invariant

from tests.example_sagas.travel import Script, services
from tests.state_machine import evidence as evidence_of
from tests.state_machine.evidence import Evidence
from toolkit import Settings
from toolkit.messaging.envelope import WireMessage
from toolkit.operations import dead_letters
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection
from toolkit.testing.memory import memory_directory
from toolkit.testing.simulation.simulation import Simulation, simulation
from toolkit.testing.simulation.wire import Parcel

#: So many minutes after the last fault every trip has ended: the watchdog's abort and the compensations are done.
LAST_MINUTES = 30
OPERATOR = Operator(name="Grace", reason="to see whether it does harm")


class TripWorld(RuleBasedStateMachine):
    """The trips' services in a simulation, and the verbs with which a state machine drives it."""

    def open(self) -> None:
        """Start the services, each on an empty database."""
        self.resources = ExitStack()
        folder = self.resources.enter_context(memory_directory("trips-"))
        self.script = Script()
        self.world: Simulation = self.resources.enter_context(
            simulation(services(self.script), settings_in(folder), template=empty_files())
        )
        self.evidence = Evidence(self.world)
        self.requests: dict[str, WireMessage] = {}
        self.requested: dict[str, datetime] = {}
        self.deadlines: dict[str, datetime] = {}
        self.open_calls: list[asyncio.Future[None]] = []

    @property
    def waiting(self) -> list[Parcel]:
        return self.world.wire.waiting

    async def wait_for_the_test(self) -> None:
        call = asyncio.get_running_loop().create_future()
        self.open_calls.append(call)
        await call

    def under_way(self) -> list[asyncio.Future[None]]:
        """Return the calls that wait for their answer; a crash may have ended some."""
        self.open_calls = [call for call in self.open_calls if not call.done()]
        return self.open_calls

    def answer(self, call: asyncio.Future[None], error: Exception | None) -> None:
        if error:
            call.set_exception(error)
        else:
            call.set_result(None)
        self.world.settle()

    def dead_letters(self) -> list[tuple[str, str]]:
        """Return the services that have dead letters, with the ids of these."""
        query = "SELECT id FROM saga_dead_letters ORDER BY id"
        return [(name, row["id"]) for name in self.world.files for row in self.world.rows(name, query)]

    def redrive(self, service: str, dead_letter: str) -> None:
        """Redrive a dead letter; the service's relay publishes its message at the next poll."""
        runtime, now = self.world.processes[service].runtime, self.world.clock.now()
        which = Selection(ids=(dead_letter,))
        self.world.processes[service].do(
            dead_letters.redrive(runtime.database, which, OPERATOR, queue=runtime.queue, now=now)
        )
        self.world.settle()

    def all_have_ended(self) -> bool:
        self.evidence.look()
        ends = {("issue_ticket", "confirmed"), ("apologize", "completed")}
        ended = {trip for (trip, step), state in self.evidence.states.items() if (step, state) in ends}
        return ended >= {*self.requests, *self.evidence.trips}

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

    def come_to_rest(self) -> None:
        """Deliver, answer and redrive everything; no new faults come, but the planned ones still do."""
        for _ in range(2 * LAST_MINUTES):
            for call in self.under_way():
                self.answer(call, None)
            for dead_letter in self.dead_letters():
                self.redrive(*dead_letter)
            while self.waiting:
                self.world.deliver(self.waiting[0])
                self.all_that_must_hold_holds()
            if self.world.is_quiet() and self.all_have_ended():
                return
            self.world.advance(timedelta(seconds=30))
            self.all_that_must_hold_holds()
        raise AssertionError(f"no rest after {LAST_MINUTES} minutes: {self.waiting}, {self.evidence.states}")


def settings_in(folder: Path) -> Settings:
    """Return settings with rare polls, since each is a transaction, and with early nudges."""
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
    """Return a folder with a file per service in which all tables exist; each run starts with copies of them."""
    kept = ExitStack()
    atexit.register(kept.close)
    folder = kept.enter_context(memory_directory("no-trips-"))
    with simulation(services(Script()), settings_in(folder)):
        return folder
