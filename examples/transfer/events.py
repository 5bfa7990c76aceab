"""The published language of the transfer saga: every event on one page, with the service that owns it.

The receiver's credit is the last step, and nothing undoes it. So money is never in two places: before the credit it can
be refunded, and after the credit it can't.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from toolkit import Event, Refusal, Saga, SagaId, Sensitive

#: The number of an account is personal data: it is masked wherever it is shown.
AccountNumber = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,34}$"), Sensitive]
#: Money in minor units (cents); bounded so that no balance outgrows the databases' integers.
Amount = Annotated[int, Field(gt=0, le=10**12)]
#: How the clearing house is to settle the transfer.
Scheme = Annotated[str, StringConstraints(pattern=r"^[a-z]{1,16}$")]


class TransferRequested(Event, owner="customer"):
    """A customer wants to pay; any client may send it to start the saga."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "transfer_id": "transfer-1001",
                    "sender": "ADA",
                    "receiver": "GRACE",
                    "amount": 25000,
                    "scheme": "instant",
                }
            ]
        }
    )

    transfer_id: SagaId
    sender: AccountNumber
    receiver: AccountNumber
    amount: Amount
    scheme: Scheme


class SenderDebited(Event, owner="sender_bank"):
    """The amount has left the sender's account; from now on it is in transit."""

    transfer_id: SagaId
    receiver: AccountNumber
    amount: Amount
    scheme: Scheme


class DebitRefused(Refusal, owner="sender_bank"):
    """The sender's account can't pay the amount."""

    transfer_id: SagaId


class SenderRefunded(Event, owner="sender_bank"):
    """The amount is in the sender's account again."""

    transfer_id: SagaId
    reason: str = ""


class TransferCleared(Event, owner="clearing"):
    """The clearing house has settled the amount between the two banks."""

    transfer_id: SagaId
    receiver: AccountNumber
    amount: Amount


class ClearingRefused(Refusal, owner="clearing"):
    """The clearing house has settled nothing, and never will."""

    transfer_id: SagaId


class TransferRecalled(Event, owner="clearing"):
    """The settlement is reversed."""

    transfer_id: SagaId
    reason: str = ""


class CreditRefused(Refusal, owner="receiver_bank"):
    """The receiver's account takes no money."""

    transfer_id: SagaId


class TransferCompleted(Event, owner="receiver_bank", optional=True):
    """The amount is in the receiver's account: the saga has completed."""

    transfer_id: SagaId


class TransferRejected(Event, owner="sender_bank", optional=True):
    """No money has moved, or all of it is back: the saga has failed."""

    transfer_id: SagaId
    reason: str


transfer_saga = Saga(
    name="transfer",
    id_field="transfer_id",
    starts_with=TransferRequested,
    completes_with=TransferCompleted,
    fails_with=TransferRejected,
)
