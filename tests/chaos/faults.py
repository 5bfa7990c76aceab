"""Causes each fault, and ends it; all are real, none is simulated within a process."""

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
from tests.chaos.plan import CONTROL_FAULTS, POISON, RIGHTS_FAULTS, Fault, PlannedFault
from tests.chaos.poison import poison_of
from tests.chaos.world import DARED, RELEASED, RELEASES, World
from tests.end_to_end.proxy import Proxy, Way
from tests.end_to_end.replica import Replica
from tests.eventually import eventually


class FaultInjector:
    """Causes the faults of the plan, and counts those that took effect."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.fired: Counter[Fault] = Counter()
        self.kills = 0
        self.exit_codes: Counter[int | None] = Counter()
        #: One outage of a server at a time: a restart during a cut would be neither.
        self._broker, self._database = asyncio.Lock(), asyncio.Lock()

    async def run(self, lane: Iterable[PlannedFault], *, done: Callable[[], object] = lambda: None) -> None:
        """Cause the faults of one lane, one after the other."""
        for planned in lane:
            await asyncio.sleep(planned.after)  # the plan's own pause
            if await _HOW[planned.fault](self, planned) is not False:
                self.fired[planned.fault] += 1
            done()

    async def kill(self, planned: PlannedFault) -> None:
        """Kill one replica, and start another later."""
        replica = await self._world.take(planned.service)
        await replica.kill()
        self.kills += 1
        await asyncio.sleep(planned.lasts)  # the time without it
        await self._world.fleet.launch(planned.service)

    async def kill_all(self, planned: PlannedFault) -> None:
        """Kill all running replicas, and start as many later."""
        replicas = [await self._world.take(planned.service)]
        replicas += [self._world.fleet.oldest(each.name) for each in self._world.fleet.running(planned.service)]
        await asyncio.gather(*(replica.kill() for replica in replicas))
        self.kills += len(replicas)
        await asyncio.sleep(planned.lasts)  # the time without it
        for _ in replicas:
            await self._world.fleet.launch(planned.service)

    async def stop(self, planned: PlannedFault) -> None:
        """Pause a replica, and continue it."""
        replica = await self._world.take(planned.service)
        replica.process.send_signal(signal.SIGSTOP)
        try:
            await asyncio.sleep(planned.lasts)  # the length of the pause
        finally:  # also where the run ends with an error: a stopped process would never end
            replica.process.send_signal(signal.SIGCONT)
            self._world.fleet.replicas.append(replica)

    async def roll(self, planned: PlannedFault) -> None:
        """Replace the replicas one by one, as in a rolling deployment."""
        for _ in range(2):
            replica = await self._world.take(planned.service)
            has_fallen = replica.process.returncode is not None
            code = await replica.terminate()
            # A message that kills its process may do so while it stops.
            if not has_fallen and (code, planned.service) != (-signal.SIGKILL, DARED):
                self.exit_codes[code] += 1
            started = await self._world.fleet.launch(planned.service)
            await eventually(partial(_has_come_up, started), within=60, every=0.5, what="a new replica")

    async def release(self, planned: PlannedFault) -> None:
        """Roll the service with two releases to the other one; both run meanwhile."""
        references = self._world.fleet.references
        references[RELEASED] = next(each for each in RELEASES if each != references[RELEASED])
        await self.roll(replace(planned, service=RELEASED))

    async def restart_broker(self, planned: PlannedFault) -> None:
        """Restart the broker, gracefully or not."""
        async with self._broker:
            await self._world.broker.restart(gently=planned.fault is Fault.BROKER_RESTARTED)

    async def cut_broker(self, planned: PlannedFault) -> None:
        """Cut the broker off, in the fault's directions."""
        async with self._broker:
            await _cut(self._world.broker.proxy, _WAYS[planned.fault], planned.lasts)

    async def freeze_broker(self, planned: PlannedFault) -> None:
        """Silence all connections to the broker, and finally close those that are still open."""
        async with self._broker:
            await _freeze(self._world.broker.proxy, planned.lasts)

    async def restart_database(self, planned: PlannedFault) -> None:
        """Restart the database, gracefully or not."""
        async with self._database:
            await self._world.database.restart(gently=planned.fault is Fault.DATABASE_RESTARTED)

    async def cut_database(self, planned: PlannedFault) -> None:
        """Cut the database off."""
        async with self._database:
            await _cut(self._world.database.proxy, tuple(Way), planned.lasts)

    async def freeze_database(self, planned: PlannedFault) -> None:
        """Silence all connections to the database, and finally close those that are still open."""
        async with self._database:
            await _freeze(self._world.database.proxy, planned.lasts)

    async def end_sessions(self, _: PlannedFault) -> None:
        """End all sessions of the services' databases."""
        async with self._database:
            connection = await asyncpg.connect(self._world.database.url)
            try:
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname LIKE 'test_%'"
                )
            finally:
                await connection.close()

    async def in_the_database(self, planned: PlannedFault) -> bool:
        """Cause a fault as the database's administrator, without an outage meanwhile."""
        async with self._database:
            return await _IN_THE_DATABASE[planned.fault](self._world, planned)

    async def on_the_broker(self, planned: PlannedFault) -> bool:
        """Lose control messages, without an outage of the broker meanwhile."""
        async with self._broker:
            return await lose_controls(self._world, planned)

    async def poison(self, planned: PlannedFault) -> None:
        """Send a poison message."""
        await self._world.send_poison(poison_of(planned.fault))


async def _has_come_up(replica: Replica) -> bool:
    """Whether it answers, or another fault has ended it."""
    return replica.process.returncode is not None or await replica.is_alive()


async def _cut(proxy: Proxy, ways: tuple[Way, ...], lasts: float) -> None:
    proxy.cut(*ways)
    await asyncio.sleep(lasts)  # the cut's own length
    proxy.heal()


async def _freeze(proxy: Proxy, lasts: float) -> None:
    frozen = proxy.freeze()
    await asyncio.sleep(lasts)  # the time that services have to notice
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

#: The method of each fault; a fault whose method returns no False has taken effect.
_HOW: dict[Fault, Callable[[FaultInjector, PlannedFault], Awaitable[bool | None]]] = {
    Fault.KILLED: FaultInjector.kill,
    Fault.ALL_KILLED: FaultInjector.kill_all,
    Fault.STOPPED: FaultInjector.stop,
    Fault.ROLLED: FaultInjector.roll,
    Fault.RELEASED: FaultInjector.release,
    Fault.BROKER_RESTARTED: FaultInjector.restart_broker,
    Fault.BROKER_CRASHED: FaultInjector.restart_broker,
    Fault.BROKER_CUT_OUT: FaultInjector.cut_broker,
    Fault.BROKER_CUT_BACK: FaultInjector.cut_broker,
    Fault.BROKER_CUT: FaultInjector.cut_broker,
    Fault.BROKER_FROZEN: FaultInjector.freeze_broker,
    Fault.DATABASE_RESTARTED: FaultInjector.restart_database,
    Fault.DATABASE_CRASHED: FaultInjector.restart_database,
    Fault.DATABASE_CUT: FaultInjector.cut_database,
    Fault.DATABASE_FROZEN: FaultInjector.freeze_database,
    Fault.SESSIONS_ENDED: FaultInjector.end_sessions,
    **dict.fromkeys(_IN_THE_DATABASE, FaultInjector.in_the_database),
    **dict.fromkeys(CONTROL_FAULTS, FaultInjector.on_the_broker),
    **dict.fromkeys(POISON, FaultInjector.poison),
}
