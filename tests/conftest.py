"""What all tests share: the servers, found once and said aloud, and a place of its own for each test on them."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from typing import Any

import asyncpg
import hypothesis
import pytest
import structlog

from tests.eventually import eventually
from tests.servers import POSTGRESQL, RABBITMQ, Kind, Server, find
from toolkit.ids import new_id
from toolkit.observability.logs import QUIET

#: How long one example takes depends on the machine's other work, and decides nothing.
hypothesis.settings.register_profile("any time", deadline=None)
hypothesis.settings.load_profile("any time")

_found: list[str] = []
_servers = pytest.StashKey[ExitStack]()
_shared = pytest.StashKey[dict[str, Server]]()


@pytest.fixture(scope="session")
def rabbitmq(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real RabbitMQ."""
    with _server(RABBITMQ, request.config) as server:
        yield server


@pytest.fixture(scope="session")
def postgresql(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A real PostgreSQL."""
    with _server(POSTGRESQL, request.config) as server:
        yield server


@contextmanager
def _server(kind: Kind, config: pytest.Config) -> Iterator[Server]:
    """Yield the one that all processes share, where there are several, else one that is found now."""
    if (workerinput := getattr(config, "workerinput", None)) is not None:
        yield Server(**workerinput[kind.what])
        return
    with find(kind) as server:
        _found.append(f"{kind.what}: {server.found}")
        yield server


def pytest_configure() -> None:
    """Hear Ctrl-C, as a terminal's command does: what a shell runs in its background ignores it, children included."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Find the servers once, before the first of several processes starts, and tell each where they are."""
    config: pytest.Config = node.config
    if _shared not in config.stash:
        stack = config.stash[_servers] = ExitStack()
        config.stash[_shared] = {
            kind.what: stack.enter_context(_server(kind, config)) for kind in (RABBITMQ, POSTGRESQL)
        }
    node.workerinput.update({what: asdict(server) for what, server in config.stash[_shared].items()})


def pytest_unconfigure(config: pytest.Config) -> None:
    """End the servers that were started for several processes."""
    if _servers in config.stash:
        config.stash[_servers].close()


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say which servers the tests ran against."""
    for line in sorted(_found):
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def logs_as_before() -> Iterator[None]:
    """Take back what a test set up for logs: its standard error is closed when the next one runs."""
    loggers = [logging.getLogger(name) for name in (None, *QUIET)]
    handlers, levels = loggers[0].handlers[:], [logger.level for logger in loggers]
    yield
    loggers[0].handlers[:] = handlers
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.fixture
def prefix() -> str:
    """A name of the test's own, for exchanges and queues."""
    return f"test-{new_id()[-12:]}"


@pytest.fixture
async def postgres_databases(postgresql: Server) -> AsyncIterator[PostgresDatabases]:
    """Fresh databases by name, dropped after the test."""
    databases = PostgresDatabases(postgresql.url)
    yield databases
    await databases.drop()


@pytest.fixture(scope="session")
def kept_databases(postgresql: Server) -> Iterator[PostgresDatabases]:
    """Databases by name, for tests that empty them first: to make one takes longer than most tests."""
    databases = PostgresDatabases(postgresql.url)
    yield databases
    asyncio.run(databases.drop())


#: Drops all schemas but the server's own.
_EMPTY = """
DO $$ DECLARE name name; BEGIN
    FOR name IN SELECT nspname FROM pg_namespace WHERE nspname !~ '^(pg_|information_schema$)' LOOP
        EXECUTE format('DROP SCHEMA %I CASCADE', name);
    END LOOP;
END $$;
CREATE SCHEMA public
"""


class PostgresDatabases:
    """Databases of one test, or of several that empty them."""

    def __init__(self, url: str) -> None:
        self._server, self._mark = url, new_id()[-12:]
        self._made: list[str] = []

    async def url(self, name: str) -> str:
        """Return the URL of the database of this name, made when it is first asked for."""
        database = f"test_{name}_{self._mark}"
        if database not in self._made:
            await self._execute(f'CREATE DATABASE "{database}"')
            self._made.append(database)
        return self._url(database)

    async def empty(self) -> None:
        """Take out of each whatever the last test left."""
        for database in self._made:
            await self._execute(_EMPTY, self._url(database))

    async def drop(self) -> None:
        """Drop them all, with whatever is still connected."""
        for database in self._made:
            await self._execute(f'DROP DATABASE "{database}" WITH (FORCE)')

    async def _execute(self, statement: str, url: str | None = None) -> None:
        connection = await eventually(lambda: self._connect(url or self._server), what="PostgreSQL")
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _connect(self, url: str) -> asyncpg.Connection | None:
        try:
            return await asyncpg.connect(url)
        except asyncpg.CannotConnectNowError:  # it answers while it is still starting up
            return None

    def _url(self, database: str) -> str:
        return f"{self._server.rpartition('/')[0]}/{database}"
