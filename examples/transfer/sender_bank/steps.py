"""The sender's bank in the transfer saga: debit the account, refund it, and report a transfer that failed.

A step locks the row of the account: of two transfers at once, the second one sees what the first one left.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.transfer.events import (
    ClearingRefused,
    DebitRefused,
    SenderDebited,
    SenderRefunded,
    TransferRecalled,
    TransferRejected,
    TransferRequested,
    transfer_saga,
)
from examples.transfer.sender_bank.models import Account, Debit
from toolkit import Participant

sender_bank = Participant("sender_bank", saga=transfer_saga)


@sender_bank.step(timeout=timedelta(minutes=2))
async def debit_sender(event: TransferRequested, session: AsyncSession) -> SenderDebited | DebitRefused:
    """Take the amount from the sender's account, or refuse if there is no such account or too little in it."""
    account = await session.get(Account, event.sender, with_for_update=True, populate_existing=True)
    if account is None:
        return DebitRefused(transfer_id=event.transfer_id, reason="the sender has no account here")
    if account.balance < event.amount:
        return DebitRefused(transfer_id=event.transfer_id, reason="the account holds less than the amount")
    account.balance -= event.amount
    session.add(Debit(transfer_id=event.transfer_id, account=event.sender, amount=event.amount))
    return SenderDebited(
        transfer_id=event.transfer_id, receiver=event.receiver, amount=event.amount, scheme=event.scheme
    )


@sender_bank.compensation(of=debit_sender)
async def refund_sender(event: ClearingRefused | TransferRecalled, session: AsyncSession) -> SenderRefunded:
    """Return the amount to the sender's account."""
    debit = await session.get_one(Debit, event.transfer_id)
    account = await session.get_one(Account, debit.account, with_for_update=True, populate_existing=True)
    account.balance += debit.amount
    debit.is_refunded = True
    return SenderRefunded(transfer_id=event.transfer_id, reason=event.reason)


@sender_bank.step()
async def reject_transfer(event: DebitRefused | SenderRefunded) -> TransferRejected:
    """End the transfer, with the reason for the customer."""
    return TransferRejected(transfer_id=event.transfer_id, reason=event.reason)
