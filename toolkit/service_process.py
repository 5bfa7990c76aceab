"""One service in a process of its own, as `saga run` runs it: its logs, signals, traces and servers.

It waits until broker and database answer, is ready then, and drains on SIGTERM and Ctrl-C.
"""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.types import Lifespan

from toolkit.api import Access, ApiContext, api_routes, application, health_routes
from toolkit.api.context import Readiness
from toolkit.app import App
from toolkit.configuration.settings import Settings, misspelt_settings
from toolkit.declaration.service import Service
from toolkit.errors import SagaError, describe
from toolkit.foreign_code.containment import contain, escaped
from toolkit.observability.logs import configure_logs
from toolkit.supervision.worker import Worker
from toolkit.transport.rabbitmq.connection import is_in_the_clear
from toolkit.urls import shown_url
from toolkit.web.host_names import names_in
from toolkit.web.listeners import is_local, listen
from toolkit.web.server import SideServer, server_config

log = structlog.get_logger("toolkit")

#: Seconds for the app's stop, after which the process exits at once; the API ends a second before.
_ALL = 8.0
#: After so many new objects Python looks for cycles among them. Its default of 700 is one batch of messages, whose
#: objects are nearly all in use still; looking at them costs a tenth of the CPU.
_OBJECTS_UNTIL_COLLECTION = 10_000
#: Connections that the health listener holds: a load balancer, Prometheus and a person, and their replicas.
_MOST_HEALTH_CONNECTIONS = 32

_TLS_CURE = "name amqps:// in SAGA_BROKER_URL, or SAGA_DEMO=1 for a demonstration"


def run_service(service: Service, settings: Settings, worker: Worker | None = None) -> int:
    """Run a service until it is stopped, or one `worker` of it; return the exit code.

    Raises:
        SagaError: it could not start, for a reason that an operator can resolve.
    """
    configure_logs(settings)
    structlog.contextvars.bind_contextvars(service=service.name, **{"worker": worker.number} if worker else {})
    if worker is None or worker.number == 1:
        _warn(settings)
    app = App(service, settings)
    if app.runtime.tracing:
        app.runtime.tracing.register_globally()
    process = ServiceProcess(app, settings, worker)
    process.run()
    for error in process.failures:
        if isinstance(error, SagaError):  # its text names the cure
            raise error
    return 1 if process.failures else 0


def _warn(settings: Settings) -> None:
    """Log what is doubtful in the settings."""
    for name, meant in misspelt_settings(os.environ).items():
        log.error("a variable is read by no setting", variable=name, cure=f"if {meant} is meant, name it so")
    if is_in_the_clear(settings):
        log.warning("the broker connection is not encrypted", broker=shown_url(settings.broker_url), cure=_TLS_CURE)


class ServiceProcess:
    """Runs an app and its HTTP servers in this process, from the start to the end of the drain.

    - `failures`: the errors that ended it, the first one first.
    """

    def __init__(self, app: App, settings: Settings, worker: Worker | None = None) -> None:
        self._app = app
        self._worker = worker
        self.failures: list[BaseException] = []
        # Kept to the end: asyncio logs a task's exception when the task is deleted, and the error is the last line.
        self._endings: list[BaseException] = []
        self._end_timer = threading.Timer(_ALL, lambda: _exit_now(1 if self.failures else 0))
        self._end_timer.daemon = True
        self._listeners = worker.open_listeners() if worker else listen(settings)
        is_private = is_local(self._listeners[0])
        readiness = worker.readiness_of_all(app.readiness) if worker else app.readiness
        self._server, self._health = _servers(app, readiness, settings, self._lifespan, is_local=is_private)

    def run(self) -> None:
        """Serve until a signal or a failure ends the process."""
        # Before uvicorn has handlers of its own these end the start. It raises the signal again after its shutdown.
        self._app.runtime.loops.on_end = self._exit_because_of
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, self._exit_on_signal)
        collect_garbage_seldom()
        try:
            self._endings = _serve(self._server, self._listeners[0])
        finally:
            self._end_timer.cancel()
        if self._endings:  # first: it has ended the loops, whose failures follow
            log.debug("the full traceback", exc_info=self._endings[0])
            self.failures.insert(0, escaped(self._endings[0]))

    @asynccontextmanager
    async def _lifespan(self, _: Starlette) -> AsyncIterator[None]:
        # Both listeners answer while the service still waits for its broker: alive, and not ready.
        starting = asyncio.create_task(contain(f"the start of {self._app.service.name}", self._app.start()))
        starting.add_done_callback(self._exit_on_failure)
        others = self._listeners[1:]
        watched = asyncio.create_task(self._health.serve(sockets=others)) if others else None
        reporting = self._report(self._worker) if self._worker else None
        yield
        self._end_timer.start()
        starting.cancel()
        if reporting:
            reporting.cancel()
        self._health.should_exit = True
        await asyncio.wait({starting, watched} if watched else {starting})
        await self._app.stop()

    def _report(self, worker: Worker) -> asyncio.Task[None]:
        """Report to the other workers, and end with the supervisor."""
        worker.watch_supervisor(self._exit_with_the_supervisor)
        reporting = asyncio.create_task(worker.report(self._app.readiness))
        reporting.add_done_callback(self._exit_without_reports)
        return reporting

    def _exit_on_signal(self, *_: object) -> None:
        self._server.should_exit = True

    def _exit_without_reports(self, reporting: asyncio.Task[None]) -> None:
        if not reporting.cancelled() and (error := reporting.exception()):
            log.error("worker can't report", error=describe(error))
            self._exit_because_of(error)

    def _exit_with_the_supervisor(self) -> None:
        log.error("the supervisor has died, so its workers stop")
        self._server.should_exit = True

    def _exit_on_failure(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()):
            if not isinstance(error, SagaError):
                log.error("service could not start", error=describe(error))
            log.debug("the full traceback", exc_info=error)
            self._exit_because_of(error)

    def _exit_because_of(self, error: BaseException) -> None:
        self.failures.append(error)
        self._server.should_exit = True


def _servers(
    app: App, readiness: Readiness, settings: Settings, lifespan: Lifespan[Starlette], *, is_local: bool
) -> tuple[uvicorn.Server, uvicorn.Server]:
    """Return the API's server, and the health checks' server."""
    context = ApiContext.of(app.runtime, readiness)
    access = Access(
        context.name,
        token=settings.write_digest,
        read_token=settings.read_digest,
        reads_are_open=is_local and settings.read_digest is None,
    )
    names = [context.name, socket.gethostname(), *names_in(settings.http_names)]
    api = server_config(application(api_routes(context, access), lifespan, names=names))
    checks = application(health_routes(context), names=names)
    watching = server_config(checks, most_connections=_MOST_HEALTH_CONNECTIONS, lifespan="off")
    return uvicorn.Server(api), SideServer(watching)


def collect_garbage_seldom() -> None:
    """Let Python look for cycles less often in this process, and never among the objects of its start."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_UNTIL_COLLECTION, *gc.get_threshold()[1:])


def _serve(server: uvicorn.Server, listener: socket.socket) -> list[BaseException]:
    """Serve until the end; return each SystemExit or KeyboardInterrupt that a task or a callback raised meanwhile.

    The event loop continues after one, to return the deliveries in hand and to disconnect as after SIGTERM. Signals
    have handlers of their own, so a KeyboardInterrupt comes from a task or a callback, too.
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


def _exit_now(code: int) -> None:
    """Exit the process: no message is lost, unacknowledged ones are redelivered."""
    log.error("stopping took too long; the process exits, and unacknowledged messages will be redelivered")
    os._exit(code)
