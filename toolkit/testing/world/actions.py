"""What happens in a world: events, rows, time, and what a test decides of its steps."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from toolkit.declaration.events import AbortRequested, Answer, Event, Refusal
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope, abort_request
from toolkit.testing.cast import Cast, Named
from toolkit.testing.scripted_steps import ScriptedSteps
from toolkit.testing.world.running import RunningWorld


class Actions:
    """Lets something happen in a world; each returns once all that follows at that moment is committed.

    world.given(Account(traveller="ADA", balance=100_00))
    world.when(TripRequested(trip_id="trip-1", ...))
    world.when.skip(timedelta(minutes=10))
    """

    def __init__(self, world: RunningWorld, cast: Cast, steps: ScriptedSteps, happened: Callable[..., None]) -> None:
        self._world, self._cast, self._steps, self._happened = world, cast, steps, happened

    def __call__(self, *things: Any, deadline: timedelta | None = None) -> None:
        """Publish events, each after all that follows from the one before; and write rows of the services' tables.

        An event is published as its owner does. The same event of the same saga again is a duplicate, unless it is an
        answer.
        `deadline`: of the whole saga, from now.

        Raises:
            WorldError: no saga of the world has the event, no service consumes it, or no service has the table.
        """
        for thing in things:
            if isinstance(thing, Event):
                self._publish(thing, deadline)
            else:
                self._world.write(thing)
                self._happened()

    def skip(self, by: timedelta) -> None:
        """Let this time pass: each deadline, retry and timer in it comes at its own time, in order."""
        self._world.skip(by)
        self._happened()

    def abort(self, saga_id: str, saga_type: str | None = None, *, reason: str = "the test aborts it") -> None:
        """Request the abort of a saga."""
        name = saga_type or next(iter(self._cast.sagas))
        self._world.publish(abort_request(name, saga_id, reason, now=self._world.clock.now()))
        self._happened((name, saga_id), AbortRequested)

    def refuses(self, step: Named, refusal: Refusal | type[Refusal] | None = None) -> None:
        """Let a step refuse from now on, without its function; by its only refusal, where none is named.

        Raises:
            ScenarioError: no service of the world has such a step, or the step no such refusal.
        """
        name = self._cast.handler(step)
        self._steps.refuse(self._steps.service_of(name), name, refusal)

    def fails(self, handler: Named, *, times: int = 1, error: Exception | None = None) -> None:
        """Let the next attempts of a step or a compensation raise an error, without its function.

        Raises:
            ScenarioError: no service of the world has such a step or compensation.
        """
        self._steps.fail(self._cast.handler(handler), times, error or ConnectionError("the test lets it fail"))

    def _publish(self, event: Event, deadline: timedelta | None) -> None:
        saga_type, saga_id = saga = self._cast.saga_of(event)
        kind, now = type(event), self._world.clock.now()
        event_id = new_id() if isinstance(event, Answer) else derived_id(saga_type, saga_id, kind.__name__)
        until = now + deadline if deadline else None
        envelope = Envelope.of(kind, event_id=event_id, saga=saga, occurred_at=now, deadline=until)
        self._world.publish(envelope.carry(event))
        self._happened(saga, kind)
