"""A former release's bindings are recorded in the service's database, and unbound once no process renews them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import update

from toolkit.persistence import known_bindings
from toolkit.persistence.database import Database
from toolkit.persistence.known_bindings import Bindings

OFTEN = timedelta(seconds=1)


async def age_leases(database: Database) -> None:
    """Move all leases an hour back."""
    async with database.transaction() as session:
        long_ago = datetime.now(UTC) - timedelta(hours=1)
        await (await session.connection()).execute(update(known_bindings.bindings).values(at=long_ago))


@pytest.fixture
def release(database: Database) -> Bindings:
    return Bindings(database, renewed_every=OFTEN)


async def test_a_former_releases_key_is_unbound_once(release: Bindings, database: Database) -> None:
    former = Bindings(database, renewed_every=OFTEN)
    await former.renew(["a.Kept", "a.Left"])
    await former.leave()

    left = await release.renew(["a.Kept", "a.New"])
    await release.unbound(left)

    assert left == ["a.Left"]
    assert await release.renew(["a.Kept", "a.New"]) == []
    assert release.former == {"a.Left"}


async def test_a_key_of_another_release_stays_bound(release: Bindings, database: Database) -> None:
    other = Bindings(database, renewed_every=OFTEN)
    await other.renew(["a.Kept", "a.Theirs"])

    assert await release.renew(["a.Kept", "a.Ours"]) == []
    assert await other.renew(["a.Kept", "a.Theirs"]) == []
    assert (release.former, other.former) == ({"a.Theirs"}, {"a.Ours"})


async def test_a_killed_replicas_key_is_unbound_later(release: Bindings, database: Database) -> None:
    await Bindings(database, renewed_every=OFTEN).renew(["a.Kept", "a.Theirs"])
    await age_leases(database)

    assert await release.renew(["a.Kept"]) == ["a.Theirs"]


async def test_a_key_declared_again_is_bound_again(release: Bindings, database: Database) -> None:
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
        await (await session.connection()).run_sync(known_bindings.bindings.drop)

    assert await release.renew(["a.Kept"]) == []
    await release.leave()
