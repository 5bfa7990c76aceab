"""The receiver's bank in the transfer saga: credit the account.

The credit ends the saga, so nothing has to undo it: there is no compensation.
"""

from __future__ import annotations

from datetime import timedelta

from sqlmodel.ext.asyncio.session import AsyncSession

from examples.transfer.events import CreditRefused, TransferCleared, TransferCompleted, transfer_saga
from examples.transfer.receiver_bank.models import Account, Credit
from toolkit import Participant

receiver_bank = Participant("receiver_bank", saga=transfer_saga)


@receiver_bank.step(timeout=timedelta(minutes=2))
async def credit_receiver(event: TransferCleared, session: AsyncSession) -> TransferCompleted | CreditRefused:
    """Add the amount to the receiver's account, or refuse if there is no such account or it is closed."""
    account = await session.get(Account, event.receiver, with_for_update=True, populate_existing=True)
    if account is None:
        return CreditRefused(transfer_id=event.transfer_id, reason="the receiver has no account here")
    if account.is_closed:
        return CreditRefused(transfer_id=event.transfer_id, reason="the receiver's account takes no money")
    account.balance += event.amount
    session.add(Credit(transfer_id=event.transfer_id, account=event.receiver, amount=event.amount))
    return TransferCompleted(transfer_id=event.transfer_id)
