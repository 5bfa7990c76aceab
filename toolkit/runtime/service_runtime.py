"""A service at work: its database, inbox and relay, wired together behind one way in and one way out."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import replace
from typing import Any

import structlog
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from structlog.contextvars import bound_contextvars
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from toolkit import failpoints
from toolkit.clock import Clock
from toolkit.configuration.settings import EMBEDDED, Settings, queue_name
from toolkit.declaration.service import Service
from toolkit.errors import SettingsError, UndeclaredStepsError, describe
from toolkit.foreign_code.containment import contain, contained
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import WireMessage
from toolkit.messaging.senders import Senders
from toolkit.observability.metrics import Meter
from toolkit.observability.tracing import RABBITMQ, tracing_for
from toolkit.persistence import dead_letters, known_bindings, known_steps
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import (
    complain,
    cure_of,
    describe_fault,
    is_misconfigured,
    is_outage,
    is_refusal,
    is_unusable,
)
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.postgres_tls import tls_fault
from toolkit.persistence.sqlite_files import readable_by_others
from toolkit.runtime.background_loops import Loops
from toolkit.runtime.batcher import Batcher
from toolkit.runtime.executor import Executor
from toolkit.runtime.external_calls import ExternalCalls
from toolkit.runtime.invocation import Invocation
from toolkit.runtime.poison_isolation import PoisonIsolation
from toolkit.runtime.pruner import Pruner
from toolkit.runtime.relay import Publisher, Relay
from toolkit.runtime.watchdog import Watchdog

log = structlog.get_logger("toolkit")

#: Naming it is what makes its table known: each service has all tables, whichever transport it works on.
_OF_THE_BROKER = known_bindings

#: The pauses between two tries to reach a database that is away.
_PATIENCE = wait_exponential_jitter(multiplier=0.1, max=2)
#: Of a dead letter that can't be kept it is logged once in so many tries: about once a minute.
_SILENT_TRIES = 30
#: Seconds for the transactions that are under way when the service stops, and for the connections to be given back.
_LAST_TRANSACTION, _FAREWELL = 1.0, 0.5


def _is_worth_waiting(error: BaseException) -> bool:
    is_closed = isinstance(error, ResourceClosedError)  # the session ended within a transaction
    return is_closed or (is_outage(error) and not is_unusable(error) and not is_misconfigured(error))


class ServiceRuntime:
    """Runs one service upon its database, with a transport's publisher as its way out."""

    def __init__(
        self,
        service: Service,
        settings: Settings,
        publisher: Publisher,
        *,
        clock: Clock,
        alone: asyncio.Lock | None = None,
    ) -> None:
        failpoints.prepare(event.__name__ for event in service.compensation_events())
        self.service = service
        self.settings = settings
        self.queue = queue_name(settings, service.name)
        self.database = Database(settings.database_for(service.name))
        self.tracing = tracing_for(service.name, system=EMBEDDED if settings.broker_url == EMBEDDED else RABBITMQ)
        self._meter = Meter(service)
        self._publisher = publisher
        self._clock = clock
        self._alone = alone or asyncio.Lock()
        self._resources = AsyncExitStack()
        self._former_steps: frozenset[tuple[str, str]] = frozenset()
        self.loops = Loops(service.name)

    async def start(self) -> None:
        """Prepare, and begin to work."""
        await self.prepare()
        self.begin()

    async def prepare(self) -> None:
        """Wait for the database, make the tables, and open what the steps need."""
        await self._prepare_database()
        self.relay = self._build_relay()
        self.batcher = self._build_batcher(Invocation(await self._open_resources()))
        self.poison_isolation = PoisonIsolation(
            self.service.name, self.database, take=self.batcher.deliver, dead_letter=self.dead_letter, alone=self._alone
        )
        await self.poison_isolation.prepare()
        self.watchdog = Watchdog(
            self.service, self.settings, database=self.database, relay=self.relay, clock=self._clock
        )
        self.pruner = Pruner(self.service.name, self.settings, database=self.database, clock=self._clock)

    @property
    def is_recording(self) -> bool:
        """Whether the database took what the service was to write last."""
        return not self.loops.tasks or (self.batcher.is_healthy and self.watchdog.is_healthy)

    def begin(self) -> None:
        """Work until told to stop."""
        with bound_contextvars(service=self.service.name):  # a task, and all that it starts, keeps what is bound now
            self.loops.begin("relay", self.relay.run())
            self.loops.begin("batcher", self.batcher.run())
            self.loops.begin("watch", self.watchdog.run())
            self.loops.begin("retention", self.pruner.run())

    def take(self, message: WireMessage, *, again: bool) -> asyncio.Future[None]:
        """Take a message, with caution if it is delivered again; return what is done once its effect is committed."""
        if again or self.poison_isolation.knows(message):
            return asyncio.ensure_future(self.poison_isolation.take(message))
        return self.batcher.take(message)

    async def dead_letter(self, dead_letter: DeadLetter) -> None:
        """Keep a message that never got here, and return once that is committed; what is in the way is waited for."""
        saga_type = self.decoder.saga_type_of(dead_letter.message)
        dead_letter = replace(
            dead_letter, message=self.decoder.under_its_saga(dead_letter.message), saga_type=saga_type
        )
        async for attempt in AsyncRetrying(wait=_PATIENCE, before_sleep=_say_dead_letter_waits):
            with attempt:
                async with self.database.transaction() as session:
                    await dead_letters.add(await session.connection(), [dead_letter])
        self._meter.dead_letter(dead_letter)
        dead_letters.log_dead_letter(dead_letter)

    async def drain(self, *, within: float) -> None:
        """Finish what is under way, for so many seconds at most; what is left is delivered again."""
        with bound_contextvars(service=self.service.name):
            try:
                async with asyncio.timeout(within):
                    if self.loops.tasks:
                        if "batcher" not in self.loops.ended:  # else what it has taken is delivered again
                            await self.batcher.drain()
                        await self.relay.drain()
            except TimeoutError:
                log.warning("stopped before all was done; the rest is delivered again")

    async def stop(self) -> None:
        """End, and let go of all that was opened; nothing new may arrive any more."""
        self.loops.let_end()
        await self._end_tasks()
        if self.loops.tasks:
            await self.poison_isolation.stop()
        await asyncio.gather(self._let_go(), self._tell_last_spans())

    async def _let_go(self) -> None:
        with suppress(TimeoutError):  # a silent server keeps nobody from leaving
            async with asyncio.timeout(_FAREWELL):
                await self._close_resources()
                await self.database.close()

    async def _close_resources(self) -> None:
        try:
            await contain("giving back what the steps were provided with", self._resources.aclose())
        except Exception as error:  # noqa: BLE001 -- a provider is the service's own code, and the process ends anyway
            log.error("what the steps were provided with could not be given back", error=describe(error))

    async def _tell_last_spans(self) -> None:
        if self.tracing:
            await asyncio.to_thread(self.tracing.shut_down, _FAREWELL)

    async def _end_tasks(self) -> None:
        """End the loops between two transactions; cut them off only where the database keeps one from ending."""
        if not self.loops.tasks:
            return
        for each in (self.pruner, self.watchdog, self.batcher, self.relay):
            each.stop()
        _, stuck = await asyncio.wait(self.loops.tasks, timeout=_LAST_TRANSACTION)
        for task in stuck:
            task.cancel()
        if stuck:
            await asyncio.wait(stuck, timeout=_FAREWELL)

    async def _prepare_database(self) -> None:
        try:
            await self._make_tables()
            self._warn_of_readers()
        except (DBAPIError, OSError) as error:
            if is_unusable(error):
                raise SettingsError(
                    f"the database {self.database.engine.url.database} can't be used: {describe_fault(error)}; "
                    "name another, or another directory, in SAGA_DATA_DIR say"
                ) from error
            if is_misconfigured(error):
                told = describe_fault(error)
                cure = "" if tls_fault(error) else "; mend its parameters"
                raise SettingsError(f"SAGA_DATABASE_URL can't be used: {told}{cure}") from error
            raise

    def _warn_of_readers(self) -> None:
        """Say where others may read the database's file: it is left as it is, since it may be shared on purpose."""
        if files := list(readable_by_others(self.database.engine.url.database)) if self.database.is_sqlite else []:
            log.warning(
                "others may read the database's files",
                service=self.service.name,
                files=files,
                cure=f"chmod 600 {shlex.join(files)}",
            )

    async def _make_tables(self) -> None:
        async for attempt in AsyncRetrying(
            wait=_PATIENCE,
            retry=retry_if_exception(_is_worth_waiting),
            before_sleep=self._say_waiting,
            reraise=True,
        ):
            with attempt:
                tables = [self.service.tables] if self.service.tables is not None else []
                await self._create(tables)
                await self._see_that_steps_are_declared()
                if self.service.seed:
                    with contained("the seed"):
                        async with self.database.transaction() as session:
                            await self.service.seed(session)

    async def _create(self, tables: Sequence[MetaData]) -> None:
        try:
            await self.database.create_tables(*tables)
        except DBAPIError as error:
            if is_outage(error) or is_unusable(error) or is_misconfigured(error):
                raise
            raise SettingsError(f"the tables can't be made: {describe_fault(error)}; {cure_of(error)}") from error

    async def _see_that_steps_are_declared(self) -> None:
        """See that no saga is under way at a step that this release does not declare, under its old name say.

        Raises:
            UndeclaredStepsError: one is, and the settings do not allow it.
        """
        async with self.database.transaction() as session:
            found = await known_steps.undeclared(await session.connection(), self.service)
        of_us = [each for each in found if each.service == self.service.name]
        self._former_steps = frozenset((each.saga_type, each.step) for each in of_us)
        unfinished = [each for each in of_us if each.unfinished]
        for each in found:
            log.warning(
                "the log holds a step that is not declared",
                service=self.service.name,
                of_service=each.service,
                saga_type=each.saga_type,
                step=each.step,
                unfinished=each.unfinished,
                cure="give the step its old name back; else a late event of theirs is ignored until they are pruned",
            )
        if unfinished and not self.settings.allow_undeclared_steps:
            raise UndeclaredStepsError(
                f"{self.service.name} does not start: sagas are under way at steps that it does not declare: "
                f"{', '.join(map(str, unfinished))}; nothing could undo them. Declare them under their old names until "
                "these sagas have ended, or set SAGA_ALLOW_UNDECLARED_STEPS=true, and see to them by hand"
            )

    def _say_waiting(self, state: Any) -> None:
        error = state.outcome.exception()
        if is_refusal(error):  # it may be that somebody mends it, but only somebody can
            cure = "mend the login or the database's name in SAGA_DATABASE_URL"
            log.error("the database refuses us", service=self.service.name, error=describe(error.orig), cure=cure)
        elif isinstance(error, ResourceClosedError):
            cure = "where PgBouncer is in between, set its pool_mode to transaction or session"
            log.warning("waiting for the database", service=self.service.name, error=str(error), cure=cure)
        else:
            log.warning("waiting for the database", service=self.service.name, error=describe_fault(error))

    async def _open_resources(self) -> dict[type, Any]:
        opened = {}
        for kind, provider in self.service.provides.items():
            with contained(f"the provider of {kind.__name__}"):
                opened[kind] = await self._resources.enter_async_context(provider(self.settings))
        return opened

    def _build_relay(self) -> Relay:
        return Relay(
            self.database,
            self._publisher,
            service=self.service.name,
            clock=self._clock,
            window=self.settings.relay_window,
            lease=self.settings.relay_lease,
            poll=self.settings.relay_poll,
            tracing=self.tracing,
        )

    def _build_batcher(self, invocation: Invocation) -> Batcher:
        executor = Executor(
            self.service,
            queue=self.queue,
            database=self.database,
            invocation=invocation,
            relay=self.relay,
            clock=self._clock,
            timeouts=self.settings.step_timeouts,
            max_body=self.settings.max_message_bytes,
            former_steps=self._former_steps,
            tracing=self.tracing,
        )
        self.decoder = Decoder(
            self.service.consumed(),
            self.service.sagas,
            max_body=self.settings.max_message_bytes,
            trace=self.tracing.root_of if self.tracing else None,
            senders=self._build_senders(),
        )
        return Batcher(
            executor,
            ExternalCalls(
                executor, concurrency=self.settings.external_concurrency, batch_size=self.settings.batch_size
            ),
            self.decoder,
            clock=self._clock,
            batch_size=self.settings.batch_size,
        )

    def _build_senders(self) -> Senders:
        # Without a broker there are no logins: all services are one process.
        logins = {} if self.settings.broker_url == EMBEDDED else self.settings.logins
        return Senders(exchange=self.settings.exchange, queue=self.queue, logins=logins)


def _say_dead_letter_waits(state: Any) -> None:
    if state.attempt_number % _SILENT_TRIES == 1:
        complain("dead letter could not be kept; it is tried again", state.outcome.exception())
