"""An emitted event is kept in the log, and can be sent again as the same event."""

from __future__ import annotations

from dataclasses import replace

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loans import BookLent, BookWanted, Clerk, library
from toolkit.persistence import emitted_events
from toolkit.persistence.database import Database


async def test_an_emitted_event_is_sent_again_unchanged(database: Database, clerk: Clerk) -> None:
    branch = Branch(library(clerk), database, resources={Clerk: clerk})
    await branch.take(BookWanted(loan_id="loan-1"), BookWanted(loan_id="loan-2"))
    await branch.relay.drain()

    async with database.reading() as connection:
        found = await emitted_events.at(
            connection, [("loan", "loan-1", "lend_book", 1), ("loan", "loan-2", "lend_book", 2)]
        )
        of_nothing = await emitted_events.at(connection, [])

    first_sent = next(each for each in branch.publisher.taken if each.correlation_id == "loan-1")
    marked = {"reply": "lend_book", "outcome": "completed"}  # for a coordinator, if one asked the step
    assert [each.as_sent(BookLent, final_steps=()) for each in found] == [
        replace(first_sent, headers=first_sent.headers | marked)
    ]
    assert of_nothing == []
