"""What notification keeps: the messages to customers, and what became of each.

An order has at most one message of a kind.
"""

from enum import StrEnum

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel

metadata = MetaData()

#: The domain whose mailboxes take nothing; it stands for every address that does not exist.
BOUNCING_DOMAIN = "@bounce.example"


class MessageKind(StrEnum):
    """What a message tells the customer."""

    CONFIRMATION = "confirmation"
    CANCELLATION = "cancellation"


class Delivery(StrEnum):
    """What became of a message."""

    SENT = "sent"
    BOUNCED = "bounced"
    ADDRESS_UNKNOWN = "address unknown"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The tables of this service alone, so that several services can live in one process."""


class Message(Base, table=True):
    """One message to the customer of one order."""

    order_id: str = Field(primary_key=True)
    kind: MessageKind = Field(primary_key=True, sa_type=AutoString)
    address: str | None
    text: str
    delivery: Delivery = Field(sa_type=AutoString)


def deliver(address: str | None) -> Delivery:
    """Send something to this address, and return what became of it."""
    if address is None:
        return Delivery.ADDRESS_UNKNOWN
    return Delivery.BOUNCED if address.lower().endswith(BOUNCING_DOMAIN) else Delivery.SENT
