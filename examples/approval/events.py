"""The published language of the purchase saga: every event on one page, with the service that owns it.

No step emits `Approved` and `Declined`: the approver gives one of them.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import ConfigDict, Field, StringConstraints

from toolkit import Answer, Event, Refusal, Saga, SagaId, Sensitive

#: The name of a department, or of what is bought.
Name = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$")]
#: Who asks is personal data: it is masked wherever it is shown.
Employee = Annotated[str, StringConstraints(pattern=r"^[A-Z0-9-]{1,32}$"), Sensitive]
#: One line of text that any database can store: PostgreSQL takes no NUL, and a label no line break.
Text = Annotated[str, StringConstraints(max_length=200, pattern=r"^\P{Cc}*$")]
#: Money in minor units (cents).
Amount = Annotated[int, Field(ge=0, le=10**12)]


class PurchaseRequested(Event, owner="employee"):
    """An employee wants something bought; any client may send it to start the saga."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "purchase_id": "purchase-1001",
                    "employee": "ADA",
                    "department": "WORKSHOP",
                    "item": "LATHE",
                    "price": 450000,
                }
            ]
        }
    )

    purchase_id: SagaId
    employee: Employee
    department: Name
    item: Name
    price: Amount


class BudgetReserved(Event, owner="finance"):
    """The price is set aside in the department's budget; the approver decides on this."""

    purchase_id: SagaId
    employee: Employee
    department: Name
    item: Name
    price: Amount


class BudgetRefused(Refusal, owner="finance"):
    """The department has not enough left, so the approver is not asked."""

    purchase_id: SagaId


class BudgetReleased(Event, owner="finance"):
    """The price is part of the department's budget again."""

    purchase_id: SagaId
    reason: str = ""


class Approved(Answer, owner="approver"):
    """The approver agrees."""

    purchase_id: SagaId
    note: Text = ""


class Declined(Answer, owner="approver"):
    """The approver does not agree."""

    purchase_id: SagaId
    why: Text


class PurchaseApproved(Event, owner="approvals"):
    """The purchase may be made."""

    purchase_id: SagaId
    item: Name
    price: Amount


class PurchaseDenied(Refusal, owner="approvals"):
    """The approver has declined, or did not answer in time."""

    purchase_id: SagaId


class PurchaseOrdered(Event, owner="ordering", optional=True):
    """The order is placed: the saga has completed."""

    purchase_id: SagaId
    order_number: str


class PurchaseRejected(Event, owner="approvals", optional=True):
    """Nothing is bought, and no budget is reserved: the saga has failed."""

    purchase_id: SagaId
    reason: str


purchase_saga = Saga(
    name="purchase",
    id_field="purchase_id",
    starts_with=PurchaseRequested,
    completes_with=PurchaseOrdered,
    fails_with=PurchaseRejected,
)
