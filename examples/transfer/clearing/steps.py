"""The clearing service in the transfer saga: have the clearing house settle the transfer, and recall it.

No transaction covers the clearing house. So each call has the step's idempotency key, and may be repeated.
"""

from __future__ import annotations

from datetime import timedelta

from examples.transfer.clearing.clearing_house import ClearingHouse, SettlementState
from examples.transfer.events import (
    ClearingRefused,
    CreditRefused,
    SenderDebited,
    TransferCleared,
    TransferRecalled,
    transfer_saga,
)
from toolkit import IdempotencyKey, Participant, RetryPolicy

clearing = Participant("clearing", saga=transfer_saga)

#: The customer waits for a transfer, so it gives up within seconds.
FOR_A_SETTLEMENT = RetryPolicy(attempts=4, first_delay=timedelta(milliseconds=200))
#: A recall has to succeed, and no customer waits for it: it outlasts an outage of some minutes.
FOR_A_RECALL = RetryPolicy(attempts=12, first_delay=timedelta(milliseconds=200))


@clearing.step(timeout=timedelta(seconds=30), retry=FOR_A_SETTLEMENT, external=True)
async def clear_transfer(
    event: SenderDebited, key: IdempotencyKey, house: ClearingHouse
) -> TransferCleared | ClearingRefused:
    """Have the amount settled between the banks, or refuse with the clearing house's reason."""
    settlement = await house.settle(key, event.amount, scheme=event.scheme)
    if settlement.state != SettlementState.SETTLED:
        return ClearingRefused(transfer_id=event.transfer_id, reason=settlement.reason)
    return TransferCleared(transfer_id=event.transfer_id, receiver=event.receiver, amount=event.amount)


@clearing.compensation(of=clear_transfer, retry=FOR_A_RECALL)
async def recall_transfer(
    event: CreditRefused, original: TransferCleared | None, key: IdempotencyKey, house: ClearingHouse
) -> TransferRecalled:
    """Reverse the settlement; where the outcome is unknown, make sure that there is none."""
    await house.recall(key)
    return TransferRecalled(transfer_id=event.transfer_id, reason=event.reason)
