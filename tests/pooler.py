"""PgBouncer before a test's databases: in transaction mode a server's session changes hands."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from tests.eventually import eventually

#: What a team's engine behind the pooler needs: statements without names.
UNNAMED: dict[str, Any] = {
    "statement_cache_size": 0,
    "prepared_statement_cache_size": 0,
    "prepared_statement_name_func": lambda: "",
}

needs_pgbouncer = pytest.mark.skipif(not shutil.which("pgbouncer"), reason="tests/install-system-packages installs it")


@asynccontextmanager
async def behind_pooler(url: str, directory: Path, mode: str, parameters: str = "") -> AsyncIterator[str]:
    """Run a pooler in this mode before all databases of a server, and yield the URL of this database through it."""
    server, port = make_url(url), _free_port()
    place = f"host={server.host} port={server.port}"
    login = f"user={server.username} password={server.password or ''}"
    settings = f"""
        [databases]
        * = {place} {login}
        [pgbouncer]
        listen_addr = 127.0.0.1
        listen_port = {port}
        unix_socket_dir =
        auth_type = any
        pool_mode = {mode}
        default_pool_size = 2
        {parameters}
    """
    file = directory / "pgbouncer.ini"
    file.write_text("\n".join(line.strip() for line in settings.splitlines()))
    with _running_pooler(file):
        await eventually(lambda: _listens(port), what="PgBouncer")
        yield f"postgresql://{server.username}@127.0.0.1:{port}/{server.database}"


@contextmanager
def _running_pooler(settings: Path) -> Iterator[None]:
    """Run a pooler of this test's own."""
    as_nobody = ["-u", "nobody"] if os.getuid() == 0 else []  # it refuses to run as root
    command = ["pgbouncer", *as_nobody, str(settings)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield
        finally:
            process.terminate()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
