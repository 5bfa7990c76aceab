"""What a former release bound is found in the service's own database, and unbound once nobody renews it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from toolkit.persistence import known_bindings as memory
from toolkit.persistence.database import Database
from toolkit.persistence.known_bindings import Bindings

OFTEN = timedelta(seconds=1)


async def ages(database: Database) -> None:
    """Let what was renewed be of an hour ago."""
    async with database.transaction() as session:
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        await (await session.connection()).execute(update(memory.bindings).values(at=long_ago))


@pytest.fixture
def release(database: Database) -> Bindings:
    return Bindings(database, renewed_every=OFTEN)


async def test_a_key_that_a_former_release_left_is_unbound_once(release: Bindings, database: Database) -> None:
    former = Bindings(database, renewed_every=OFTEN)
    await former.renew(["a.Kept", "a.Left"])
    await former.leave()

    left = await release.renew(["a.Kept", "a.New"])
    await release.unbound(left)

    assert left == ["a.Left"]
    assert await release.renew(["a.Kept", "a.New"]) == []
    assert release.former == {"a.Left"}


async def test_a_key_of_a_replica_of_another_release_stays_bound(release: Bindings, database: Database) -> None:
    other = Bindings(database, renewed_every=OFTEN)
    await other.renew(["a.Kept", "a.Theirs"])

    assert await release.renew(["a.Kept", "a.Ours"]) == []
    assert await other.renew(["a.Kept", "a.Theirs"]) == []
    assert (release.former, other.former) == ({"a.Theirs"}, {"a.Ours"})


async def test_a_key_of_a_replica_that_was_killed_is_unbound_after_its_lease(
    release: Bindings, database: Database
) -> None:
    await Bindings(database, renewed_every=OFTEN).renew(["a.Kept", "a.Theirs"])
    await ages(database)

    assert await release.renew(["a.Kept"]) == ["a.Theirs"]


async def test_a_key_that_is_declared_again_is_bound_again(release: Bindings, database: Database) -> None:
    first = Bindings(database, renewed_every=OFTEN)
    await first.renew(["a.Kept", "a.Left"])
    await first.leave()
    await release.unbound(await release.renew(["a.Kept"]))
    await release.leave()

    back = Bindings(database, renewed_every=OFTEN)
    assert await back.renew(["a.Kept", "a.Left"]) == []
    assert back.former == frozenset()
    await back.leave()
    assert await release.renew(["a.Kept"]) == ["a.Left"]


async def test_a_database_that_refuses_unbinds_nothing(release: Bindings, database: Database) -> None:
    await release.renew(["a.Left"])
    await release.leave()
    async with database.transaction() as session:
        await (await session.connection()).run_sync(memory.bindings.drop)

    assert await release.renew(["a.Kept"]) == []
    await release.leave()
