"""An example's services at work, and what a test asks about them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping
from datetime import timedelta

from tests.conformance.world import EmbeddedWorld, RabbitWorld
from toolkit.cli.demonstration import Demo, Scenario
from toolkit.cli.demonstration_answers import PlayedAnswer, play
from toolkit.client.account_checks import RepeatedChecks
from toolkit.client.saga_client import SagaClient
from toolkit.client.service_locations import in_database
from toolkit.client.verification import verify
from toolkit.client.waiting import wait_until_ended
from toolkit.clock import SystemClock
from toolkit.declaration.events import Event
from toolkit.messaging.envelope import WireMessage, starting_message
from toolkit.protocol.timeline import Timeline

#: A busy machine takes longer for a saga than any test wants to wait for a lost one.
PATIENCE = timedelta(seconds=100)


class Running:
    """The services of one example, with the URLs of their databases."""

    def __init__(self, demo: Demo, world: EmbeddedWorld | RabbitWorld, urls: Mapping[str, str]) -> None:
        self.demo, self.world, self.urls = demo, world, urls
        declared = {each.name: each for each in demo.services}
        self.clients = [in_database(name, url, world.settings, declared.__getitem__) for name, url in urls.items()]
        self.people = SagaClient([demo.saga], self, self.clients, clock=SystemClock())

    async def close(self) -> None:
        """Close the databases."""
        for client in self.clients:
            await client.close()

    async def publish(self, message: WireMessage) -> None:
        """Publish a message as a client."""
        await self.world.send(message)

    async def send(self, saga_id: str, event: Event) -> None:
        """Start a saga as a client."""
        await self.publish(starting_message(self.demo.saga.name, saga_id, event, now=SystemClock().now()))

    async def play(self, scenario: Scenario) -> list[PlayedAnswer]:
        """Start the saga of a scenario, give its answers, and return what became of them."""
        saga = self.demo.saga
        for _ in range(scenario.sent):
            await self.send(scenario.id, scenario.event(saga, saga.starts_with))
        return await play(saga, scenario.id, scenario.answers, self.people, within=PATIENCE)

    async def play_all(self, scenarios: Iterable[Scenario]) -> list[PlayedAnswer]:
        """Play scenarios, one after the other: a busy machine would miss a short deadline; those answered late wait."""
        plays = []
        for each in scenarios:
            plays.append(asyncio.create_task(self.play(each)))
            if not each.is_answered_late:
                await plays[-1]
        return [played for each in plays for played in await each]

    async def ended(self, *saga_ids: str) -> dict[str, Timeline]:
        """Return the timelines of these sagas, once they have ended and no message is on its way."""
        found = await wait_until_ended(self.demo.saga.name, saga_ids, self.clients, within=PATIENCE)
        await self.world.quiet()
        return {timeline.saga_id: timeline for timeline in found}

    def checked(self) -> RepeatedChecks:
        """Return the example's own checks, to be repeated on these databases."""
        return RepeatedChecks(self.demo.always, self.urls)

    async def violations(self) -> list[str]:
        """Return what `saga verify` finds wrong, or can't check, for good: a replica may still be recording an end."""
        until = time.monotonic() + PATIENCE.total_seconds()
        while found := await self._violations():
            if time.monotonic() > until:
                break
            await asyncio.sleep(0.2)
        return found

    async def _violations(self) -> list[str]:
        report = await verify(self.clients, checks=self.demo.always, broker=self.world.settings)
        return [*map(str, report.violations), *report.unchecked, *report.unreachable.values()]
