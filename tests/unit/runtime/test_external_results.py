"""Results of external calls share transactions, and a result that can't be written fails alone."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import MetaData, event, text
from sqlalchemy.orm import registry
from sqlalchemy.util import await_only
from sqlmodel import Field, SQLModel
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import wire
from tests.example_sagas.loan_rows import notes, states, terminate_other_connections
from tests.example_sagas.loans import QUICK, BookWanted, LoanRefused, loan_saga
from toolkit import Event, Participant, SagaId, Service
from toolkit.persistence.database import Database

tables = MetaData()


class Base(SQLModel, registry=registry(metadata=tables)):
    """The table of a service that charges a fee for each loan."""


class Fee(Base, table=True):
    id: int | None = Field(default=None, primary_key=True)
    loan_id: str
    receipt: str = Field(unique=True)


class FeePaid(Event, owner="till", optional=True):
    loan_id: SagaId
    fee: int


class Provider:
    """A provider that answers once so many calls wait, and each later call at once."""

    def __init__(self, expected: int) -> None:
        self.expected, self.calls = expected, 0
        self.all_called = asyncio.Event()
        self.receipts: dict[str, str] = {}

    async def charge(self, loan_id: str) -> str:
        self.calls += 1
        if self.calls == self.expected:
            await self.before_it_answers()
            self.all_called.set()
        await self.all_called.wait()
        return self.receipts.get(loan_id, f"receipt of {loan_id}")

    async def before_it_answers(self) -> None:
        """Do nothing; a test replaces this."""


def till(provider: Provider) -> Service:
    participant = Participant("till", saga=loan_saga, retry=QUICK)

    @participant.step(external=True)
    async def charge_fee(event: BookWanted, session: AsyncSession) -> FeePaid | LoanRefused:
        receipt = await provider.charge(event.loan_id)
        if receipt == "declined":
            return LoanRefused(loan_id=event.loan_id, reason="the card is declined")
        session.add(Fee(loan_id=event.loan_id, receipt=receipt))
        return FeePaid(loan_id=event.loan_id, fee=1)

    return Service(name="till", participants=[participant], tables=tables)


async def charged(database: Database) -> list[tuple[int, str]]:
    async with database.reading() as connection:
        return [tuple(row) for row in await connection.execute(text("SELECT id, loan_id FROM fee ORDER BY id"))]


@contextmanager
def commits(database: Database) -> Iterator[list[str]]:
    seen: list[str] = []
    count = lambda _: seen.append("commit")  # noqa: E731 -- one object, so that it can be removed
    event.listen(database.engine.sync_engine, "commit", count)
    yield seen
    event.remove(database.engine.sync_engine, "commit", count)


@contextmanager
def before_the_log_is_written(database: Database, action: Coroutine[Any, Any, Any]) -> Iterator[None]:
    """Run an action after the first batch has flushed its rows, before it appends to the saga log."""
    actions = [action]

    def look(_: Any, __: Any, statement: str, *___: Any) -> None:
        if "INSERT INTO fee" in statement and actions:
            await_only(actions.pop())

    event.listen(database.engine.sync_engine, "after_cursor_execute", look)
    yield
    event.remove(database.engine.sync_engine, "after_cursor_execute", look)
    assert not actions


async def open_till(database: Database, provider: Provider, **facts: int) -> Branch:
    await database.create_tables(tables)
    return Branch(till(provider), database, resources={}, **facts)


async def charge(branch: Branch, loans: list[str]) -> None:
    """Claim all calls in one transaction, and make them side by side."""
    calls = await branch.take(*(BookWanted(loan_id=loan) for loan in loans))
    await asyncio.gather(*(branch.external_calls.run(call) for call in calls))


async def test_outcomes_that_come_at_once_share_a_transaction(database: Database) -> None:
    loans = [f"loan-{number}" for number in range(8)]
    branch = await open_till(database, Provider(8))

    with commits(database) as seen:
        await charge(branch, loans)

    assert len(seen) <= 4  # the claims, the first result or two, all the others
    assert sorted(loan for _, loan in await charged(database)) == loans
    assert [await states(database, loan) for loan in loans] == [["executing", "completed"]] * 8
    assert sorted(map(str, branch.publisher.saga_ids())) == loans


async def test_an_unwritable_row_fails_its_step_alone(database: Database) -> None:
    loans = [f"loan-{number}" for number in range(8)]
    provider = Provider(8)
    provider.receipts = {"loan-3": "a double", "loan-5": "a double"}
    branch = await open_till(database, provider)

    await charge(branch, loans)

    ended = {loan: (await states(database, loan))[-1] for loan in loans}
    retried = [loan for loan in loans if await notes(database, loan) == ["retrying"]]
    assert len(retried) == 1
    assert retried[0] in ("loan-3", "loan-5")
    assert ended == dict.fromkeys(loans, "completed") | {retried[0]: "executing"}
    assert sorted(loan for _, loan in await charged(database)) == sorted(set(loans) - set(retried))


async def test_a_result_written_elsewhere_leaves_its_batch(database: Database) -> None:
    loans = [f"loan-{number}" for number in range(4)]
    slow, quick = await open_till(database, Provider(4)), await open_till(database, Provider(1))
    calls = await slow.take(*(BookWanted(loan_id=loan) for loan in loans))
    running = [asyncio.create_task(slow.external_calls.run(call)) for call in calls[:3]]
    await quick.handle(BookWanted(loan_id="loan-1"))

    running.append(asyncio.create_task(slow.external_calls.run(calls[3])))
    await asyncio.gather(*running)

    assert sorted(loan for _, loan in await charged(database)) == loans
    assert [await states(database, loan) for loan in loans] == [["executing", "completed"]] * 4


async def test_flushed_rows_of_a_late_batch_are_written(postgres: Database) -> None:
    loans = [f"loan-{number}" for number in range(4)]
    neighbour = Database(postgres.url)
    here, there = Provider(4), Provider(1)
    here.receipts = there.receipts = {"loan-3": "declined"}
    slow, quick = await open_till(postgres, here), await open_till(neighbour, there)
    calls = await slow.take(*(BookWanted(loan_id=loan) for loan in loans))

    with before_the_log_is_written(postgres, quick.handle(BookWanted(loan_id="loan-3"))):
        await asyncio.gather(*(slow.external_calls.run(call) for call in calls))

    assert [await states(postgres, loan) for loan in loans[:3]] == [["executing", "completed"]] * 3
    assert await states(postgres, "loan-3") == ["executing", "failed"]
    assert sorted(loan for _, loan in await charged(postgres)) == loans[:3]
    await neighbour.close()


async def test_results_in_a_transaction_stay_within_batch_size(database: Database) -> None:
    branch = await open_till(database, Provider(8), batch_size=2)
    calls = [call for n in range(8) for call in await branch.take(BookWanted(loan_id=f"loan-{n}"))]

    with commits(database) as seen:
        await asyncio.gather(*(branch.external_calls.run(call) for call in calls))

    assert len(seen) >= 4
    assert len(await charged(database)) == 8


async def test_results_survive_a_cut_connection_without_new_calls(postgres: Database) -> None:
    loans = [f"loan-{number}" for number in range(4)]
    provider = Provider(4)
    branch, neighbour = await open_till(postgres, provider), Database(postgres.url)
    provider.before_it_answers = lambda: terminate_other_connections(neighbour)

    async with branch.open():
        await asyncio.gather(*(branch.batcher.deliver(wire(BookWanted(loan_id=loan))) for loan in loans))

    assert sorted(loan for _, loan in await charged(neighbour)) == loans
    assert [await states(neighbour, loan) for loan in loans] == [["executing", "completed"]] * 4
    assert [await notes(neighbour, loan) for loan in loans] == [[]] * 4
    assert provider.calls == 4, "the database answers again: the known results are written, and no call is repeated"
    await neighbour.close()
