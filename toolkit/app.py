"""The composition root of one service in a process of its own: RabbitMQ, its database, and its HTTP API.

It is ready when it reaches all of them, waits for what is not there yet, and drains on SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import asynccontextmanager
from ipaddress import ip_address
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import Lifespan

from toolkit.api import Access, ApiContext, api_routes, application, health_routes
from toolkit.clock import SystemClock
from toolkit.configuration.environment import guard_token
from toolkit.configuration.settings import Settings, misspelt_settings
from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service
from toolkit.errors import DatabaseUnavailableError, SagaError, SettingsError, describe
from toolkit.foreign_code.containment import contain, escaped
from toolkit.observability.logs import configure_logs
from toolkit.runtime.service_runtime import ServiceRuntime
from toolkit.transport.rabbitmq.connection import connect_patiently, is_in_the_clear
from toolkit.transport.rabbitmq.endpoints import RabbitConsumer, RabbitPublisher
from toolkit.urls import shown_url
from toolkit.web.server import SideServer, bind, server_config

log = structlog.get_logger("toolkit")

#: Where the API listens if the settings name no port and this one is free.
_USUAL_PORT = 8000
#: Seconds, when the service is told to stop, for the deliveries in hand, for what they brought about, for the last
#: transactions, and for good manners towards a broker that may be silent.
_FINISH, _DRAIN, _END, _FAREWELL = 2.5, 1.5, 2.0, 0.5
#: Seconds for all of that, after which the process ends as it stands; a second before, the API has ended.
_ALL = 8.0
#: Seconds for a client of a server to mind that nobody waits for it any more.
_MOMENT = 0.1
#: After so many new objects Python looks for cycles among them. Its 700 of old are one batch of messages, whose objects
#: are nearly all in use still; looking at them costs a tenth of the CPU.
_OBJECTS_UNTIL_COLLECTION = 10_000
#: Connections that the health listener holds: a load balancer, Prometheus and a person, and their replicas.
_MOST_HEALTH_CONNECTIONS = 32
#: What the system says where it is the port that can't be had, and not the address.
_PORT_FAULTS = (errno.EADDRINUSE, errno.EACCES, errno.EPERM)


_TLS_CURE = "name amqps:// in SAGA_BROKER_URL, or SAGA_DEMO=1 where this is but a demonstration"


class App:
    """One service on RabbitMQ."""

    def __init__(self, service: Service, settings: Settings) -> None:
        self.service = service
        self.publisher = RabbitPublisher(settings)
        self.runtime = ServiceRuntime(service, settings, self.publisher, clock=SystemClock())
        if self.runtime.tracing:
            self.runtime.tracing.be_everybodys()
        self._settings = settings
        self._consumer: RabbitConsumer | None = None

    async def start(self) -> None:
        """Wait for broker and database, then begin to consume."""
        await connect_patiently(self.publisher.connect, self.service.name, self._settings)
        await self.runtime.start()
        self._consumer = RabbitConsumer(self.service, self._settings, self.runtime)
        await connect_patiently(self._consumer.start, self.service.name, self._settings)
        for name, task in self._consumer.loops.items():
            self.runtime.loops.supervise(name, task)
        log.info("service started", service=self.service.name)

    async def stop(self) -> None:
        """Take nothing new, finish what is under way, send what it brought about, and disconnect."""
        self.runtime.loops.let_end()
        if self._consumer:
            await _at_most(_FINISH, self._consumer.stop_taking())
        await _at_most(_DRAIN + _MOMENT, self.runtime.drain(within=_DRAIN))
        await _at_most(_END, self.runtime.stop())
        if self._consumer:
            await _at_most(_FAREWELL, self._consumer.close())
        await _at_most(_FAREWELL, self.publisher.close())
        log.info("service stopped", service=self.service.name)

    async def readiness(self) -> Mapping[str, bool]:
        """Tell, by asking, whether broker, database and relay can be relied on now, and which loops have ended."""
        parts = {
            "broker": self.publisher.is_connected and self._consumer is not None and self._consumer.is_connected,
            "database": await self._database_answers() and self.runtime.is_recording,
            "relay": self._consumer is not None and self.runtime.relay.is_healthy,
        }
        return parts | dict.fromkeys(self.runtime.loops.ended, False)

    async def _database_answers(self) -> bool:
        try:
            await self.runtime.database.ping()
        except DatabaseUnavailableError:
            return False
        return True


def run_service(service: Service, settings: Settings) -> int:
    """Run a service until it is told to stop; return the exit code.

    Raises:
        SagaError: it could not start, for a reason that somebody can mend.
    """
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(service=service.name)
    for name, meant in misspelt_settings(os.environ).items():
        log.error("a variable is read by no setting", variable=name, cure=f"if {meant} is meant, name it so")
    if is_in_the_clear(settings):
        log.warning("the broker is spoken to in the clear", broker=shown_url(settings.broker_url), cure=_TLS_CURE)
    app = App(service, settings)
    failures: list[BaseException] = []
    last_moment = threading.Timer(_ALL, lambda: _end_as_it_stands(1 if failures else 0))
    last_moment.daemon = True

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        # Both listeners answer while the service still waits for its broker: alive, and not ready.
        starting = asyncio.create_task(contain(f"the start of {service.name}", app.start()))
        starting.add_done_callback(lambda task: _exit_on_failure(task, server, failures))
        watched = asyncio.create_task(health.serve(sockets=listeners[1:])) if listeners[1:] else None
        yield
        last_moment.start()
        starting.cancel()
        health.should_exit = True
        await asyncio.wait({starting, watched} if watched else {starting})
        await app.stop()

    listeners = _listen(settings)
    server, health = _servers(app, settings, lifespan, is_local=_is_local(listeners[0]))
    # uvicorn raises the signal again after its shutdown: having drained, the process has done what it was asked.
    app.runtime.loops.on_end = lambda error: _exit_because_of(error, server, failures)
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: None)
    collect_garbage_seldom()
    try:
        endings = _serve(server, listeners[0])
    finally:
        last_moment.cancel()
    if endings:  # before those of the loops, which end with it
        log.debug("the full traceback", exc_info=endings[0])
        failures.insert(0, escaped(endings[0]))
    for error in failures:
        if isinstance(error, SagaError):  # it says itself what to do
            raise error
    return 1 if failures else 0


def _servers(
    app: App, settings: Settings, lifespan: Lifespan[Starlette], *, is_local: bool
) -> tuple[uvicorn.Server, uvicorn.Server]:
    """Return the server of the API, and the one that answers health checks beside it."""
    context = ApiContext(
        service=app.service,
        contract=Contract.of(app.service, timeouts=settings.step_timeouts),
        database=app.runtime.database,
        readiness=app.readiness,
        queue=app.runtime.queue,
        clock=SystemClock(),
    )
    access = Access(
        context.name,
        token=settings.api_token,
        read_token=settings.api_read_token,
        reads_are_open=is_local and not settings.api_read_token,
    )
    names = [context.name, socket.gethostname(), *(each.strip() for each in settings.http_names.split(","))]
    api = server_config(application(api_routes(context, access), lifespan, names=names))
    checks = application(health_routes(context), names=names)
    watching = server_config(checks, most_connections=_MOST_HEALTH_CONNECTIONS, lifespan="off")
    return uvicorn.Server(api), SideServer(watching)


def collect_garbage_seldom() -> None:
    """Have Python look for cycles less often in this process, and never among what stands since its start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION, *gc.get_threshold()[1:])


def _serve(server: uvicorn.Server, listener: socket.socket) -> list[BaseException]:
    """Serve until the end, also where a task or a callback raises what ends the event loop; return what did.

    The loop goes on then, to give back what is in hand and to disconnect as after SIGTERM. Signals have handlers of
    their own, so a KeyboardInterrupt comes from a task or a callback, too.
    """
    endings: list[BaseException] = []
    with asyncio.Runner(loop_factory=server.config.get_loop_factory()) as runner:
        loop = runner.get_loop()
        serving = loop.create_task(server.serve(sockets=[listener]))
        while not serving.done():
            try:
                loop.run_until_complete(serving)
            except (SystemExit, KeyboardInterrupt) as ending:
                endings.append(ending)
                server.should_exit = True
    return endings


async def _at_most(seconds: float, ending: Coroutine[Any, Any, None]) -> None:
    """Await the end of something, and go on without it where it fails, or where a silent server keeps it from ending.

    In a task of its own: on a dying connection the broker's client raises CancelledError, or minds none.
    """
    task = asyncio.create_task(ending)
    await asyncio.wait({task}, timeout=seconds)
    task.cancel()
    await asyncio.wait({task}, timeout=_MOMENT)
    if task.done() and not task.cancelled() and (error := task.exception()):
        log.info("a connection did not end well; what it held will come again", error=describe(error))


def _end_as_it_stands(code: int) -> None:
    """End the process: nothing is lost by that, only delivered again."""
    log.error("stopping took too long; the process ends as it stands, and what is under way will come again")
    os._exit(code)


def _exit_on_failure(task: asyncio.Task[None], server: uvicorn.Server, failures: list[BaseException]) -> None:
    if not task.cancelled() and (error := task.exception()):
        if not isinstance(error, SagaError):
            log.error("service could not start", error=describe(error))
        log.debug("the full traceback", exc_info=error)
        _exit_because_of(error, server, failures)


def _exit_because_of(error: BaseException, server: uvicorn.Server, failures: list[BaseException]) -> None:
    failures.append(error)
    server.should_exit = True


def _listen(settings: Settings) -> list[socket.socket]:
    """Listen for the API, and for health checks beside it, unless the settings name one port for both."""
    api = _listen_for_api(settings)
    try:
        _see_that_it_is_guarded(settings, api)
    except SettingsError:
        api.close()
        raise
    port = api.getsockname()[1]
    log.info("api listens", host=settings.http_host, port=port)
    if settings.health_port == port:
        return [api]
    try:
        health = bind(settings.http_host, settings.health_port)
    except OSError as error:
        api.close()
        raise SettingsError(
            f"SAGA_HEALTH_PORT={settings.health_port} can't be listened on at {settings.http_host}: {error.strerror}; "
            "name a free one, or none to have one chosen"
        ) from error
    log.info("health listens", host=settings.http_host, port=health.getsockname()[1])
    return [api, health]


def _listen_for_api(settings: Settings) -> socket.socket:
    """Listen on the port of the settings, or on any free one where they name none and the usual one is taken."""
    wanted = settings.http_port
    try:
        return bind(settings.http_host, _USUAL_PORT if wanted is None else wanted)
    except (OSError, UnicodeError) as error:
        told = getattr(error, "strerror", None) or str(error)
        if getattr(error, "errno", None) not in _PORT_FAULTS:
            raise SettingsError(
                f"SAGA_HTTP_HOST={settings.http_host!r} can't be listened on: {told}; name an address of this machine"
            ) from error
        if wanted is not None:
            raise SettingsError(
                f"SAGA_HTTP_PORT={wanted} can't be listened on at {settings.http_host}: {told}; "
                "name a free one, or none to have one chosen"
            ) from error
        return bind(settings.http_host, 0)


def _see_that_it_is_guarded(settings: Settings, listener: socket.socket) -> None:
    """See that an API which others than this machine reach has a token, and none that can be guessed.

    Raises:
        SettingsError: it has none, a short one, or the demonstration's.
    """
    if _is_local(listener):
        return
    place = f"SAGA_HTTP_HOST={settings.http_host!r} is reached from other machines"
    try:
        if not (settings.api_token or settings.api_read_token):
            raise SettingsError(
                f"{place}, and SAGA_API_TOKEN is not set: set it to a text that can't be guessed, "
                " by `openssl rand -hex 32` say, which operators then show; or SAGA_API_READ_TOKEN for who "
                "only reads; or SAGA_HTTP_HOST to 127.0.0.1"
            )
        guard_token("SAGA_API_TOKEN", settings.api_token, place)
        guard_token("SAGA_API_READ_TOKEN", settings.api_read_token, place)
    except SettingsError:
        listener.close()
        raise


def _is_local(listener: socket.socket) -> bool:
    """Whether only this machine reaches what listens there."""
    return ip_address(listener.getsockname()[0]).is_loopback
