"""The services of a scenario on the embedded transport, and what one saga has left in their logs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

from sqlalchemy import func, select

from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.participant import Step
from toolkit.declaration.service import Service
from toolkit.errors import ScenarioError
from toolkit.messaging.envelope import TIMER, WireMessage
from toolkit.persistence import outbox, saga_log_queries
from toolkit.protocol.fence import StepState
from toolkit.protocol.keys import SagaKey
from toolkit.protocol.log_entry import LogEntry
from toolkit.runtime.delivery import settled
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.testing.clock import ManualClock
from toolkit.testing.held_messages import HeldMessages

#: Seconds in which one delivery has to be handled, on a busy machine, too.
_PATIENCE = 30.0
#: Longer than any test: the clock stands still, and moves only over a step's deadline.
_NEVER = timedelta(days=300)
#: The relay need not look for due rows: a timer is delivered by hand.
_POLL = timedelta(minutes=1)
#: More rows than one saga leaves in an outbox.
_MOST_ROWS = 1000
#: An external step in one of these states is calling out.
_CALLING = (StepState.EXECUTING, StepState.VOIDING, StepState.COMPENSATING)
#: How many rows of an outbox are events, which are held in a moment.
_PUBLISHED = select(func.count()).select_from(outbox.outbox).where(outbox.outbox.c.destination.is_(None))


class PlayedServices(HeldMessages):
    """Delivers one message at a time, and reads the logs of one saga once all that follows is held."""

    def __init__(self, services: Sequence[Service], *, directory: Path, saga: SagaKey, clock: ManualClock) -> None:
        settings = Settings(data_dir=directory, broker_url=EMBEDDED, relay_poll=_POLL, overdue_after=_NEVER)
        super().__init__(services, settings, clock=clock)
        self._now = clock.now
        self._saga_type, self._saga_id = saga
        self.entries: list[LogEntry] = []

    @property
    def states(self) -> dict[tuple[str, str], str]:
        """The state of each step, by its service and its name, after the last delivery."""
        return {(each.service, each.step): str(each.to_state) for each in self.entries if each.position is not None}

    def runtime(self, service: str) -> ServiceRuntime:
        """Return the runtime of a service.

        Raises:
            ScenarioError: there is none of this name.
        """
        if service not in self.runtimes:
            raise ScenarioError(f"the scenario has no service {service}: name one of {', '.join(self.runtimes)}")
        return self.runtimes[service]

    def step(self, service: str, step: str) -> Step:
        """Return a step of a service.

        Raises:
            ScenarioError: there is no such service, or no such step.
        """
        steps = {each.name: each for each in self.runtime(service).service.steps}
        if step not in steps:
            raise ScenarioError(f"there is no step {step} in {service}: name one of {', '.join(steps)}")
        return steps[step]

    def pairs(self) -> list[tuple[WireMessage, str]]:
        """Return each held message with each service that consumes it."""
        return [(message, name) for message in self.held for name in self.consumers(message)]

    async def deliver(self, message: WireMessage, service: str) -> None:
        """Deliver a message, and return when all that follows from it is committed and read."""
        async with asyncio.timeout(_PATIENCE):
            await settled(message, self.runtime(service).accept)
            while await self._is_busy():  # noqa: ASYNC110 -- a table sends no notification
                await asyncio.sleep(0.01)
            await self._read_logs()

    async def timers(self, service: str, step: str) -> list[WireMessage]:
        """Return the timers of a step that gathers; the relay finds none due, since its clock stands still."""
        later = self._now() + _NEVER
        async with self.runtime(service).database.transaction() as session:
            rows = await outbox.claim(await session.connection(), now=later, until=later, most=_MOST_ROWS)
        return [row.message for row in rows if row.message.headers.get(TIMER) == step]

    async def _read_logs(self) -> None:
        for runtime in self.runtimes.values():
            async with runtime.database.reading() as connection:
                entries = await saga_log_queries.entries(connection, saga_id=self._saga_id, saga_type=self._saga_type)
            read = sum(each.service == runtime.service.name for each in self.entries)
            self.entries += entries[read:]

    async def _is_busy(self) -> bool:
        """Whether an event that was emitted is not held yet, or an external step is calling out."""
        for runtime in self.runtimes.values():
            async with runtime.database.reading() as connection:
                if await connection.scalar(_PUBLISHED):
                    return True
                entries = await saga_log_queries.entries(connection, saga_id=self._saga_id)
            last = {each.step: each.to_state for each in entries if each.position is not None}
            if any(state in _CALLING for state in last.values()):
                return True
        return False
