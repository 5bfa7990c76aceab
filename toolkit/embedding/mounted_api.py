"""The HTTP API of a service below a path of the application that runs it."""

from __future__ import annotations

from collections.abc import MutableMapping
from weakref import WeakKeyDictionary

from starlette.types import ASGIApp, Receive, Scope, Send

from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.api.responses import error_answer
from toolkit.declaration.service import Service
from toolkit.embedding.embedded_service import EmbeddedService, embedded


def saga_api(service: Service, *, reads_are_open: bool = False) -> ASGIApp:
    """Return the HTTP API of a service that runs in this application, by `saga_lifespan` say, to be mounted.

        app.mount("/saga", saga_api(shop))

    What changes something takes the token SAGA_API_TOKEN, reading SAGA_API_READ_TOKEN or that one; health checks take
    none. `reads_are_open`: reading takes no token; for an application that guards the path itself.
    """
    return _MountedApi(service, reads_are_open=reads_are_open)


class _MountedApi:
    def __init__(self, service: Service, *, reads_are_open: bool) -> None:
        self._service = service
        self._reads_are_open = reads_are_open
        self._apis: MutableMapping[EmbeddedService, ASGIApp] = WeakKeyDictionary()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request by the service that runs in this event loop."""
        if (running := embedded(self._service)) is None:
            name = self._service.name
            answer = error_answer(503, f"{name} does not run here: give the application lifespan=saga_lifespan({name})")
            await answer(scope, receive, send)
            return
        if running not in self._apis:
            self._apis[running] = self._api_of(running)
        await self._apis[running](scope, receive, send)

    def _api_of(self, running: EmbeddedService) -> ASGIApp:
        runtime = running.app.runtime
        context = ApiContext.of(runtime, running.app.readiness)
        access = Access(
            context.name,
            token=runtime.settings.write_digest,
            read_token=runtime.settings.read_digest,
            reads_are_open=self._reads_are_open,
        )
        return application(api_routes(context, access))
