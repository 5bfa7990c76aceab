"""A saga starts with the commit of the application's own transaction, and only then."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from sqlalchemy.ext.asyncio import async_scoped_session
from sqlalchemy.orm import Session, scoped_session, sessionmaker
from sqlmodel import Session as SQLModelSession
from sqlmodel.ext.asyncio.session import AsyncSession as SQLModelAsyncSession

from tests.example_sagas.library_branch import RecordingPublisher
from tests.example_sagas.loan_rows import rows_left
from tests.unit.embedding.shop import Order, OrderPlaced, Sessions, order_saga, orders_in, sync_session
from tests.unit.runtime.relays import a_moment, until_empty, until_published
from toolkit import start, start_sync
from toolkit.messaging.decoding import Decoder
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

WANTED = OrderPlaced(order_id="order-1", note="a gift")


async def test_a_commit_sends_the_event_at_once(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async with team() as session, session.begin():
        session.add(Order(id="order-1"))
        saga_id = await start(session, WANTED)
    await until_published(sent, 1)
    await until_empty(database)

    (message,) = sent.taken
    read = Decoder({OrderPlaced}, [order_saga], max_body=10_000).read(message, ManualClock())
    assert (saga_id, read.envelope.saga, read.event) == ("order-1", ("order", "order-1"), WANTED)
    assert sent.destinations == [None]
    assert await orders_in(database) == ["order-1"]


async def test_nothing_is_sent_before_the_commit(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async with team() as session, session.begin():
        await start(session, WANTED)
        await session.flush()
        await a_moment()
        before = list(sent.taken)
    await until_published(sent, 1)

    assert before == []


async def test_a_rollback_takes_the_start_back(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    with suppress(ZeroDivisionError):
        async with team() as session, session.begin():
            session.add(Order(id="order-1"))
            await start(session, WANTED)
            raise ZeroDivisionError
    await a_moment()

    assert (await rows_left(database), await orders_in(database), sent.taken) == ([], [], [])


async def test_a_session_goes_on_after_a_rollback(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async with team() as session:
        await start(session, OrderPlaced(order_id="order-1"))
        await session.rollback()
        await start(session, OrderPlaced(order_id="order-2"))
        await session.commit()
        await until_published(sent, 1)
        await start(session, OrderPlaced(order_id="order-3"))
        await session.commit()
        await until_published(sent, 2)

    assert sent.saga_ids() == ["order-2", "order-3"]


async def test_a_released_savepoint_starts_its_saga(sent: RecordingPublisher, team: Sessions) -> None:
    async with team() as session, session.begin():
        async with session.begin_nested():
            await start(session, WANTED)
        await a_moment()
        before = list(sent.taken)
    await until_published(sent, 1)

    assert before == []


async def test_a_savepoint_rolled_back_starts_nothing(
    sent: RecordingPublisher, team: Sessions, database: Database
) -> None:
    async with team() as session, session.begin():
        await start(session, OrderPlaced(order_id="order-1"))
        with suppress(ZeroDivisionError):
            async with session.begin_nested():
                await start(session, OrderPlaced(order_id="order-2"))
                raise ZeroDivisionError
    await until_published(sent, 1)
    await until_empty(database)

    assert sent.saga_ids() == ["order-1"]


async def test_a_repeated_start_is_one_message(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async with team() as session, session.begin():
        for _ in range(2):
            await start(session, WANTED)
    await until_published(sent, 1)
    await until_empty(database)

    assert sent.saga_ids() == ["order-1"]


async def test_a_later_start_repeats_the_same_message(
    sent: RecordingPublisher, team: Sessions, database: Database
) -> None:
    for number in (1, 2):
        async with team() as session, session.begin():
            await start(session, WANTED)
        await until_published(sent, number)
        await until_empty(database)

    assert len({message.message_id for message in sent.taken}) == 1


async def test_two_transactions_start_one_saga(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async def one(number: int) -> None:
        async with team() as session, session.begin():
            await start(session, OrderPlaced(order_id="order-1", note=str(number)))

    await asyncio.gather(*(one(number) for number in range(5)))
    await until_empty(database)

    assert {message.message_id for message in sent.taken} == {sent.taken[0].message_id}


async def test_the_first_content_of_an_id_counts(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    async with team() as session, session.begin():
        await start(session, OrderPlaced(order_id="order-1", note="1"))
        await start(session, OrderPlaced(order_id="order-1", note="a gift"))
    await until_published(sent, 1)
    await until_empty(database)

    (message,) = sent.taken
    assert OrderPlaced.model_validate_json(message.body).note == "1"


async def test_a_synchronous_session_in_a_thread_starts(sent: RecordingPublisher, database: Database) -> None:
    def place() -> str:
        with sync_session(database) as session, session.begin():
            session.add(Order(id="order-1"))
            return start_sync(session, WANTED)

    saga_id = await asyncio.to_thread(place)
    await until_published(sent, 1)

    assert (saga_id, sent.saga_ids(), await orders_in(database)) == ("order-1", ["order-1"], ["order-1"])


async def test_a_synchronous_rollback_starts_nothing(sent: RecordingPublisher, database: Database) -> None:
    def place() -> None:
        with sync_session(database) as session:
            start_sync(session, WANTED)
            session.rollback()

    await asyncio.to_thread(place)
    await a_moment()

    assert (await rows_left(database), sent.taken) == ([], [])


async def test_scoped_sessions_start_sagas(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    def place() -> None:
        with sync_session(database) as session:
            scoped: scoped_session[Session] = scoped_session(sessionmaker(session.get_bind()))
            start_sync(scoped, OrderPlaced(order_id="order-1"))
            scoped.commit()
            scoped.remove()

    await asyncio.to_thread(place)
    scoped = async_scoped_session(team, scopefunc=asyncio.current_task)
    await start(scoped, OrderPlaced(order_id="order-2"))
    await scoped.commit()
    await scoped.remove()
    await until_published(sent, 2)

    assert sorted(map(str, sent.saga_ids())) == ["order-1", "order-2"]


async def test_sqlmodels_sessions_start_sagas(sent: RecordingPublisher, team: Sessions, database: Database) -> None:
    def place() -> None:
        with sync_session(database) as session, SQLModelSession(session.get_bind()) as own:
            start_sync(own, OrderPlaced(order_id="order-1"))
            own.commit()

    await asyncio.to_thread(place)
    async with SQLModelAsyncSession(team.kw["bind"]) as session:
        await start(session, OrderPlaced(order_id="order-2"))
        await session.commit()
    await until_published(sent, 2)

    assert sorted(map(str, sent.saga_ids())) == ["order-1", "order-2"]
