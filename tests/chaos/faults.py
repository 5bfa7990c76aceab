"""How each fault is brought about, and undone; all of it real, none of it simulated within a process."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

import asyncpg

from tests.chaos.plan import Blow, Fault
from tests.chaos.world import World
from tests.end_to_end.proxy import Proxy, Way
from tests.eventually import eventually


class Striker:
    """Deals the blows of the plan, and counts those that hit."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fired: Counter[Fault] = Counter()
        self.kills = 0
        self.exit_codes: Counter[int | None] = Counter()
        #: One outage of a server at a time: a restart behind a cut would be neither.
        self._broker, self._database = asyncio.Lock(), asyncio.Lock()

    async def run(self, blows: Iterable[Blow], *, struck: Callable[[], object] = lambda: None) -> None:
        """Deal the blows of one lane, one after the other."""
        for blow in blows:
            await asyncio.sleep(blow.after)  # the plan's own pause
            await _HOW[blow.fault](self, blow)
            self.fired[blow.fault] += 1
            struck()

    async def kill(self, blow: Blow) -> None:
        """Kill one replica, and start another after a while."""
        replica = await self._world.take(blow.service)
        await replica.kill()
        self.kills += 1
        await asyncio.sleep(blow.lasts)  # nobody is there meanwhile
        await self._world.fleet.launch(blow.service)

    async def kill_all(self, blow: Blow) -> None:
        """Kill all replicas that run, and start as many after a while."""
        replicas = [await self._world.take(blow.service)]
        replicas += [self._world.fleet.oldest(each.name) for each in self._world.fleet.running(blow.service)]
        await asyncio.gather(*(replica.kill() for replica in replicas))
        self.kills += len(replicas)
        await asyncio.sleep(blow.lasts)  # nobody is there meanwhile
        for _ in replicas:
            await self._world.fleet.launch(blow.service)

    async def stop(self, blow: Blow) -> None:
        """Stop a replica's time, and let it go on."""
        replica = await self._world.take(blow.service)
        replica.process.send_signal(signal.SIGSTOP)
        await asyncio.sleep(blow.lasts)  # its time stands still
        replica.process.send_signal(signal.SIGCONT)
        self._world.fleet.replicas.append(replica)

    async def roll(self, blow: Blow) -> None:
        """Replace the replicas one after the other, as a new version is rolled out."""
        for _ in range(2):
            replica = await self._world.take(blow.service)
            self.exit_codes[await replica.terminate()] += 1
            started = await self._world.fleet.launch(blow.service)
            await eventually(started.is_alive, within=60, every=0.5, what="a new replica")

    async def restart_broker(self, blow: Blow) -> None:
        """Restart the broker, in good order or not."""
        async with self._broker:
            await self._world.broker.restart(gently=blow.fault is Fault.BROKER_RESTARTED)

    async def cut_broker(self, blow: Blow) -> None:
        """Cut the broker off, in these directions."""
        async with self._broker:
            await _cut(self._world.broker.proxy, _WAYS[blow.fault], blow.lasts)

    async def freeze_broker(self, blow: Blow) -> None:
        """Let all connections to the broker go silent, and end at last those that nobody missed."""
        async with self._broker:
            await _freeze(self._world.broker.proxy, blow.lasts)

    async def restart_database(self, blow: Blow) -> None:
        """Restart the database, in good order or not."""
        async with self._database:
            await self._world.database.restart(gently=blow.fault is Fault.DATABASE_RESTARTED)

    async def cut_database(self, blow: Blow) -> None:
        """Cut the database off."""
        async with self._database:
            await _cut(self._world.database.proxy, tuple(Way), blow.lasts)

    async def freeze_database(self, blow: Blow) -> None:
        """Let all connections to the database go silent, and end at last those that nobody missed."""
        async with self._database:
            await _freeze(self._world.database.proxy, blow.lasts)

    async def end_sessions(self, _: Blow) -> None:
        """End all sessions of the services' databases."""
        async with self._database:
            connection = await asyncpg.connect(self._world.database.url)
            try:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'"
                )
            finally:
                await connection.close()


async def _cut(proxy: Proxy, ways: tuple[Way, ...], lasts: float) -> None:
    proxy.cut(*ways)
    await asyncio.sleep(lasts)  # the cut's own length
    proxy.heal()


async def _freeze(proxy: Proxy, lasts: float) -> None:
    frozen = proxy.freeze()
    await asyncio.sleep(lasts)  # services have so long to notice by themselves
    proxy.reset(frozen)


_WAYS = {
    Fault.BROKER_CUT_OUT: (Way.OUT,),
    Fault.BROKER_CUT_BACK: (Way.BACK,),
    Fault.BROKER_CUT: tuple(Way),
}

_HOW: dict[Fault, Callable[[Striker, Blow], Awaitable[None]]] = {
    Fault.KILLED: Striker.kill,
    Fault.ALL_KILLED: Striker.kill_all,
    Fault.STOPPED: Striker.stop,
    Fault.ROLLED: Striker.roll,
    Fault.BROKER_RESTARTED: Striker.restart_broker,
    Fault.BROKER_CRASHED: Striker.restart_broker,
    Fault.BROKER_CUT_OUT: Striker.cut_broker,
    Fault.BROKER_CUT_BACK: Striker.cut_broker,
    Fault.BROKER_CUT: Striker.cut_broker,
    Fault.BROKER_FROZEN: Striker.freeze_broker,
    Fault.DATABASE_RESTARTED: Striker.restart_database,
    Fault.DATABASE_CRASHED: Striker.restart_database,
    Fault.DATABASE_CUT: Striker.cut_database,
    Fault.DATABASE_FROZEN: Striker.freeze_database,
    Fault.SESSIONS_ENDED: Striker.end_sessions,
}
