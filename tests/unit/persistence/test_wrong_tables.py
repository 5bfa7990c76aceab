"""A fault in the toolkit's own tables is waited for, and logged with its cure."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from sqlalchemy.engine import make_url
from structlog.testing import capture_logs

from tests.eventually import eventually
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_rows import dead_letters_of, lent, notes
from tests.example_sagas.loans import Clerk, library
from tests.unit.persistence.faults import change, is_now, wanted
from toolkit.ids import new_id
from toolkit.persistence.database import Database

#: Faults of the toolkit's tables on either database: the harm, its undoing, and a part of the logged cure.
RENAMED = [
    ("ALTER TABLE saga_log RENAME TO hidden", "ALTER TABLE hidden RENAME TO saga_log", "restore the table"),
    ("ALTER TABLE saga_outbox RENAME TO hidden", "ALTER TABLE hidden RENAME TO saga_outbox", "restore the table"),
    (
        "ALTER TABLE saga_outbox RENAME COLUMN tries TO t",
        "ALTER TABLE saga_outbox RENAME COLUMN t TO tries",
        "add the missing column",
    ),
    (
        "ALTER TABLE saga_log RENAME COLUMN error TO e",
        "ALTER TABLE saga_log RENAME COLUMN e TO error",
        "add the missing column",
    ),
]
ON_SERVER = [
    ("REVOKE INSERT ON saga_log FROM {login}", "GRANT INSERT ON saga_log TO {login}", "grant the service's login"),
    ("REVOKE SELECT ON saga_log FROM {login}", "GRANT SELECT ON saga_log TO {login}", "grant the service's login"),
    (
        "REVOKE INSERT ON saga_outbox FROM {login}",
        "GRANT INSERT ON saga_outbox TO {login}",
        "grant the service's login",
    ),
    (
        "REVOKE DELETE ON saga_outbox FROM {login}",
        "GRANT DELETE ON saga_outbox TO {login}",
        "grant the service's login",
    ),
    (
        "REVOKE USAGE ON SEQUENCE saga_log_id_seq FROM {login}",
        "GRANT USAGE ON SEQUENCE saga_log_id_seq TO {login}",
        "USAGE on the sequence",
    ),
    (
        "ALTER TABLE saga_log ADD CONSTRAINT no CHECK (false) NOT VALID",
        "ALTER TABLE saga_log DROP CONSTRAINT no",
        "remove the constraint",
    ),
    (
        "ALTER TABLE saga_outbox ADD COLUMN more INT NOT NULL",
        "ALTER TABLE saga_outbox DROP COLUMN more",
        "remove the constraint",
    ),
]
IN_FILE = [
    (
        "CREATE TRIGGER no BEFORE INSERT ON saga_log BEGIN SELECT RAISE(ABORT, 'no'); END",
        "DROP TRIGGER no",
        "remove the constraint",
    ),
]


@pytest.fixture
async def librarian(postgres: Database) -> AsyncIterator[Database]:
    """The library's database through a login that owns nothing."""
    name = f"librarian_{new_id()[-12:]}"
    grants = [
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {name}",
        f"GRANT USAGE ON SCHEMA public TO {name}",
        f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO {name}",
    ]
    await change(postgres, *grants)
    login = make_url(postgres.url).set(username=name, password="secret")
    database = Database(login.render_as_string(hide_password=False))
    yield database
    await database.close()
    await change(postgres, f"DROP OWNED BY {name}", f"DROP ROLE {name}")


async def cures_logged_while_waiting(
    database: Database, clerk: Clerk, harm: Callable[[], Awaitable[None]], undo: Callable[[], Awaitable[None]]
) -> list[str]:
    """Deliver thirty loans during a fault, and repair it; return the logged cures."""
    branch = Branch(library(clerk), database, resources={Clerk: clerk}, batch_size=10)
    await harm()
    with capture_logs() as logs:
        async with branch.open():
            deliveries = [asyncio.create_task(branch.batcher.deliver(wanted(number))) for number in range(30)]
            await eventually(lambda: is_now(not branch.batcher.is_healthy), what="the fault")
            await eventually(lambda: is_now(any("cure" in each for each in logs)), what="the cure")
            are_settled = all(each.done() for each in deliveries)
            await undo()
            await asyncio.wait_for(asyncio.gather(*deliveries), timeout=30)
            assert branch.batcher.is_healthy
    assert not are_settled
    assert sorted(await lent(database)) == sorted(f"loan-{number}" for number in range(30))
    assert [await notes(database, f"loan-{number}") for number in range(30)] == [[]] * 30
    assert await dead_letters_of(database) == []
    return [each["cure"] for each in logs if "cure" in each]


@pytest.mark.parametrize(("harm", "undo", "cure"), RENAMED)
async def test_a_wrong_table_is_waited_for_and_logged(
    database: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    cures = await cures_logged_while_waiting(
        database, clerk, lambda: change(database, harm), lambda: change(database, undo)
    )

    assert any(cure in each for each in cures)


@pytest.mark.parametrize(("harm", "undo", "cure"), ON_SERVER)
async def test_on_postgresql_a_wrong_rule_is_waited_for(
    postgres: Database, librarian: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    login = make_url(librarian.url).username
    harm, undo = harm.format(login=login), undo.format(login=login)
    cures = await cures_logged_while_waiting(
        librarian, clerk, lambda: change(postgres, harm), lambda: change(postgres, undo)
    )

    assert any(cure in each for each in cures)


@pytest.mark.parametrize(("harm", "undo", "cure"), IN_FILE)
async def test_on_sqlite_a_wrong_rule_is_waited_for(
    sqlite: Database, clerk: Clerk, harm: str, undo: str, cure: str
) -> None:
    cures = await cures_logged_while_waiting(sqlite, clerk, lambda: change(sqlite, harm), lambda: change(sqlite, undo))

    assert any(cure in each for each in cures)
