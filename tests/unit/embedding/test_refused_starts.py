"""A start that can't be sent is refused in its transaction, with the cure."""

from __future__ import annotations

import os
import signal
import sys
from asyncio import create_subprocess_exec
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session
from sqlmodel import Session as SQLModelSession

from tests.example_sagas.library_branch import Branch, RecordingPublisher
from tests.example_sagas.loan_rows import rows_left
from tests.example_sagas.loans import BookWanted, Clerk, library
from tests.unit.embedding.shop import Order, OrderPlaced, OrderShipped, Sessions, order_saga, orders_in, running, shop
from tests.unit.runtime.relays import until_published
from toolkit import Event, Saga, SagaId, start, start_sync
from toolkit.embedding.team_sessions import NoOutboxError
from toolkit.errors import NotStartingError, StepError
from toolkit.persistence.database import Database

WANTED = OrderPlaced(order_id="order-1")


class FilmWanted(Event, owner="viewer"):
    order_id: SagaId


film = replace(order_saga, name="film", starts_with=FilmWanted)
reel = replace(order_saga, name="reel", starts_with=FilmWanted)


@pytest.mark.parametrize(
    ("event", "saga", "fault"),
    [
        (OrderShipped(order_id="order-1"), None, "no declared saga starts with OrderShipped: pass the event"),
        (FilmWanted(order_id="film-1"), None, "several sagas start with FilmWanted: film, reel; name one of them"),
        (WANTED, film, "the saga film starts with FilmWanted, not with OrderPlaced"),
    ],
)
async def test_an_event_that_starts_no_saga_is_refused(
    team: Sessions, database: Database, event: Event, saga: Saga | None, fault: str
) -> None:
    async with team() as session:
        with pytest.raises(NotStartingError, match=fault):
            await start(session, event, saga=saga)


async def test_a_named_saga_is_started(sent: RecordingPublisher, team: Sessions) -> None:
    async with team() as session, session.begin():
        await start(session, FilmWanted(order_id="film-1"), saga=reel)
    await until_published(sent, 1)

    assert sent.taken[0].headers["saga-type"] == "reel"


async def test_an_event_too_large_for_messages_is_refused(sent: RecordingPublisher, team: Sessions) -> None:
    async with team() as session:
        with pytest.raises(StepError, match="more than the limit of 262144"):
            await start(session, OrderPlaced(order_id="order-1", note="x" * 300_000))


async def test_a_session_of_the_other_kind_is_refused(team: Sessions) -> None:
    wrong: Any = Session()
    with pytest.raises(NoOutboxError, match="this Session is no AsyncSession: `start_sync`"):
        await start(wrong, WANTED)
    async with team() as session:
        with pytest.raises(NoOutboxError, match=r"this AsyncSession is no Session: `await start"):
            start_sync(session, WANTED)  # type: ignore[arg-type]


async def test_an_object_that_is_no_session_is_refused() -> None:
    wrong: Any = object()
    with pytest.raises(NoOutboxError, match="pass a session of SQLAlchemy or SQLModel"):
        await start(wrong, WANTED)
    with pytest.raises(NoOutboxError, match="pass a session of SQLAlchemy or SQLModel"):
        start_sync(wrong, WANTED)


async def test_a_database_without_the_tables_is_refused(tmp_path: Path) -> None:
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'other.db'}")
    async with AsyncSession(engine) as session:
        with pytest.raises(NoOutboxError, match=r"other\.db has no table \w+: start the service once"):
            await start(session, WANTED)
    await engine.dispose()


def test_a_session_without_the_outboxs_database_is_refused() -> None:
    engine = create_engine("sqlite://")
    with (
        SQLModelSession(binds={Order: engine}) as session,
        pytest.raises(NoOutboxError, match="is bound to no database"),
    ):
        start_sync(session, WANTED)


async def test_a_killed_process_leaves_its_start(database: Database, team: Sessions) -> None:
    async with running(shop(), database, RecordingPublisher()):
        pass
    command = (sys.executable, "-m", "tests.unit.embedding.killed_shop", database.url)

    killed = await (await create_subprocess_exec(*command, env=os.environ)).wait()
    left = await rows_left(database)
    publisher = RecordingPublisher()
    async with running(shop(), database, publisher):
        await until_published(publisher, 1)

    assert (killed, left, await orders_in(database)) == (-signal.SIGKILL, ["order-1"], ["order-1"])
    assert publisher.saga_ids() == ["order-1"]


async def test_a_poll_finds_a_row_of_another_process(database: Database) -> None:
    publisher = RecordingPublisher()
    async with running(shop(), database, publisher, poll=timedelta(milliseconds=100)):
        command = (sys.executable, "-m", "tests.unit.embedding.killed_shop", database.url)
        await (await create_subprocess_exec(*command, env=os.environ)).wait()
        await until_published(publisher, 1)

    assert publisher.saga_ids() == ["order-1"]


async def test_a_step_starts_another_saga(clerk: Clerk, database: Database) -> None:
    async def order_a_copy(event: BookWanted, session: AsyncSession) -> None:
        await start(session, OrderPlaced(order_id=f"copy-for-{event.loan_id}"))

    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    clerk.will("lend_book", order_a_copy)
    await branch.handle(BookWanted(loan_id="loan-1"))

    assert await rows_left(database) == ["copy-for-loan-1", "loan-1"]
