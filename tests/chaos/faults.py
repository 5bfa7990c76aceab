"""How each fault is brought about, and undone; all of it real, none of it simulated within a process."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from functools import partial

import asyncpg  # type: ignore[import-untyped]

from tests.chaos.control_faults import lose_controls
from tests.chaos.database_faults import kill_query, lock_table, revoke_rights
from tests.chaos.plan import CONTROL_FAULTS, POISON, RIGHTS_FAULTS, Blow, Fault
from tests.chaos.poison import poison_of
from tests.chaos.world import DARED, RELEASED, RELEASES, World
from tests.end_to_end.proxy import Proxy, Way
from tests.end_to_end.replica import Replica
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
            if await _HOW[blow.fault](self, blow) is not False:
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
            has_fallen = replica.process.returncode is not None
            code = await replica.terminate()
            # A message that kills its process may do so while it stops.
            if not has_fallen and (code, blow.service) != (-signal.SIGKILL, DARED):
                self.exit_codes[code] += 1
            started = await self._world.fleet.launch(blow.service)
            await eventually(partial(_has_come_up, started), within=60, every=0.5, what="a new replica")

    async def release(self, blow: Blow) -> None:
        """Roll the service that has two releases to the other one; both are at work meanwhile."""
        references = self._world.fleet.references
        references[RELEASED] = next(each for each in RELEASES if each != references[RELEASED])
        await self.roll(replace(blow, service=RELEASED))

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

    async def in_the_database(self, blow: Blow) -> bool:
        """Do what an administrator may do in the database, which is there meanwhile."""
        async with self._database:
            return await _IN_THE_DATABASE[blow.fault](self._world, blow)

    async def on_the_broker(self, blow: Blow) -> bool:
        """Lose control messages, with the broker there."""
        async with self._broker:
            return await lose_controls(self._world, blow)

    async def poison(self, blow: Blow) -> None:
        """Send a message that must take nothing else with it."""
        await self._world.send_poison(poison_of(blow.fault))


async def _has_come_up(replica: Replica) -> bool:
    """Whether it answers, or has been ended by another fault already."""
    return replica.process.returncode is not None or await replica.is_alive()


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

_IN_THE_DATABASE = {
    Fault.QUERY_CANCELLED: kill_query,
    Fault.QUERY_ENDED: kill_query,
    Fault.TABLE_LOCKED: lock_table,
    **dict.fromkeys(RIGHTS_FAULTS, revoke_rights),
}

#: What does not say otherwise has hit.
_HOW: dict[Fault, Callable[[Striker, Blow], Awaitable[bool | None]]] = {
    Fault.KILLED: Striker.kill,
    Fault.ALL_KILLED: Striker.kill_all,
    Fault.STOPPED: Striker.stop,
    Fault.ROLLED: Striker.roll,
    Fault.RELEASED: Striker.release,
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
    **dict.fromkeys(_IN_THE_DATABASE, Striker.in_the_database),
    **dict.fromkeys(CONTROL_FAULTS, Striker.on_the_broker),
    **dict.fromkeys(POISON, Striker.poison),
}
