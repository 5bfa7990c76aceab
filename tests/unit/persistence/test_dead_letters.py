"""A dead letter keeps a message whole, whatever it holds."""

from __future__ import annotations

from datetime import timedelta

from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import dead_letters_of
from tests.example_sagas.loans import NOON, BookWanted
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letter_queries, dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter, Selection


async def keep(database: Database, *kept: DeadLetter) -> None:
    async with database.transaction() as session:
        await dead_letters.add(await session.connection(), kept)


def dead(message: WireMessage, *, number: int = 1, **facts: object) -> DeadLetter:
    return DeadLetter(
        id=f"letter-{number}", service="library", reason="schema", error="no title", message=message,
        at=NOON + timedelta(seconds=number), **facts,
    )  # fmt: skip


async def test_a_dead_letter_keeps_all_its_fields(database: Database) -> None:
    message = wire(BookWanted(loan_id="loan-1"), at=NOON)
    await keep(database, dead(message, step="lend_book", attempts=4, traceback="line 7"))

    (dead_letter,) = await dead_letters_of(database)

    assert dead_letter.as_row() == {
        "id": "letter-1",
        "service": "library",
        "reason": "schema",
        "error": "no title",
        "traceback": "line 7",
        "saga_type": "loan",
        "saga_id": "loan-1",
        "step": "lend_book",
        "event_type": "BookWanted",
        "message_id": message.message_id,
        "routing_key": "reader.BookWanted",
        "headers": message.headers,
        "body": message.body.decode(),
        "attempts": 4,
        "sent_at": NOON,
        "first_at": NOON + timedelta(seconds=1),
        "last_at": NOON + timedelta(seconds=1),
    }


async def test_a_repeated_dead_letter_counts_its_attempts(database: Database) -> None:
    message = wire(BookWanted(loan_id="loan-1"), at=NOON)

    await keep(database, dead(message, number=1))
    await keep(database, dead(message, number=9))

    (dead_letter,) = await dead_letters_of(database)
    assert (dead_letter.id, dead_letter.attempts) == ("letter-1", 2)
    assert (dead_letter.first_at, dead_letter.last_at) == (
        NOON + timedelta(seconds=1),
        NOON + timedelta(seconds=9),
    )


async def test_another_sagas_body_is_another_dead_letter(database: Database) -> None:
    stray = WireMessage(b"{}", "reader.BookWanted")
    of_a_saga = WireMessage(b"{}", "reader.BookWanted", correlation_id="loan-1")

    await keep(database, dead(stray, number=1), dead(of_a_saga, number=2))

    assert {(dead_letter.saga_id, dead_letter.attempts) for dead_letter in await dead_letters_of(database)} == {
        (None, 1),
        ("loan-1", 1),
    }


async def test_only_one_operator_takes_a_dead_letter(database: Database) -> None:
    dead_letter = dead(wire(BookWanted(loan_id="loan-1"), at=NOON))
    await keep(database, dead_letter)

    taken = []
    for _ in range(2):
        async with database.transaction() as session:
            taken.append(await dead_letters.take(await session.connection(), [dead_letter]))

    assert taken == [[dead_letter], []]
    assert await dead_letters_of(database) == []


async def test_a_message_of_nothing_but_bytes_is_kept(database: Database) -> None:
    message = WireMessage(
        body=b"\xff\x00", routing_key="any\0where", message_id="a\0b", headers={"odd": timedelta(seconds=1), "b": b"x"}
    )
    await keep(database, dead(message))

    (dead_letter,) = await dead_letters_of(database)

    assert dead_letter.body == "\\xff\x00"
    assert (dead_letter.routing_key, dead_letter.message_id) == ("anywhere", "ab")
    assert dead_letter.headers == {"odd": "0:00:01", "b": "b'x'"}
    assert dead_letter.saga_id is None


async def test_dead_letters_are_listed_newest_first(database: Database) -> None:
    of_one, of_two = wire(BookWanted(loan_id="loan-1")), wire(BookWanted(loan_id="loan-2"))
    of_one_again = wire(BookWanted(loan_id="loan-1"), event_id="another")
    await keep(database, dead(of_one, number=1), dead(of_two, number=2), dead(of_one_again, number=3))
    await keep(database)

    async with database.reading() as connection:
        newest = await dead_letter_queries.listed(connection, limit=2)
        of_loan_1 = await dead_letter_queries.listed(connection, Selection(saga_id="loan-1"))

    assert [each.id for each in newest] == ["letter-3", "letter-2"]
    assert [each.id for each in of_loan_1] == ["letter-3", "letter-1"]
