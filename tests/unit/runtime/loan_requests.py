"""Messages of the loan saga, and step actions, that the runtime's tests share."""

from __future__ import annotations

from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of, wire
from tests.example_sagas.loans import Action, BookWanted, CardRefused
from toolkit import Event
from toolkit.declaration.events import AbortRequested
from toolkit.messaging.envelope import WireMessage

WANTED = BookWanted(loan_id="loan-1")
CARD_REFUSED = CardRefused(loan_id="loan-1", reason="card expired")
ABORT = AbortRequested(saga_type="loan", saga_id="loan-1", reason="the reader left")


def wanted(number: int, shelf: int = 1) -> WireMessage:
    """Return the request for a loan as the message on the wire."""
    return wire(BookWanted(loan_id=f"loan-{number}", shelf=shelf))


def fails(error: Exception) -> Action:
    """Return the action of a step that raises this error."""

    async def raise_it(_: Event, __: AsyncSession) -> None:
        raise error

    return raise_it


async def abort(branch: Branch) -> None:
    """Let the branch execute an abort of the saga."""
    await branch.executor.execute([message_of(ABORT, saga_id="loan-1")])
