"""The HTTP API of one of the services upon a database, in a process of its own; prints the port it listens on."""

from __future__ import annotations

import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module

import uvicorn
from starlette.applications import Starlette

from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.clock import SystemClock
from toolkit.declaration.contract import Contract
from toolkit.persistence.database import Database


def main(name: str, url: str) -> None:
    service, database = import_module(f"services.{name}.app").app, Database(url)

    async def readiness() -> dict[str, bool]:
        return {"broker": True, "database": True, "relay": True}

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await database.close()

    context = ApiContext(
        service=service, contract=Contract.of(service), database=database, readiness=readiness,
        queue=f"saga.{name}", clock=SystemClock(),
    )  # fmt: skip
    api = application(api_routes(context, Access(name, token=None)), lifespan, names=())
    listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(api, log_config=None, access_log=False)).run(sockets=[listener])


if __name__ == "__main__":
    main(*sys.argv[1:])
