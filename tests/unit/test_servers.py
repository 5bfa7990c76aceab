"""Without a server the tests report Docker's error; a figure that a server does not count is not measured."""

from __future__ import annotations

import math
from dataclasses import replace

import asyncpg
import pytest

from benchmarks.databases import OnPostgres
from tests.end_to_end.breakable import own_server
from tests.servers import POSTGRESQL, Server, find

#: An image that does not exist, and a port without a listener.
NOWHERE = replace(POSTGRESQL, variable="SAGA_TEST_NO_SUCH_URL", image="saga-toolkit/no-such-image:0", port=1)


def test_without_docker_its_answer_is_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///no/such.sock")

    with pytest.raises(RuntimeError, match=r"Docker: no engine answers: .*"), find(NOWHERE):
        pass


def test_a_container_that_fails_names_its_error() -> None:
    with (
        pytest.raises(
            RuntimeError, match=r"Docker(: no engine answers| could not start saga-toolkit/no-such-image:0): "
        ),
        own_server(NOWHERE),
    ):
        pass


async def test_statements_are_counted_only_where_the_server_does(
    postgresql: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    connection = await asyncpg.connect(postgresql.url)
    is_counting = "pg_stat_statements" in await connection.fetchval("SHOW shared_preload_libraries")
    await connection.close()

    meter = await OnPostgres(postgresql.url).meter()

    assert math.isnan(meter.statements) == (not is_counting)
    assert meter.commits >= 0
    assert ("statements are not counted" in capsys.readouterr().err) == (not is_counting)
