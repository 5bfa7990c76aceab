"""Notification's table: the messages to customers, and whether each was delivered.

An order has at most one message of a kind.
"""

from enum import StrEnum

from sqlalchemy import MetaData
from sqlalchemy.orm import registry
from sqlmodel import AutoString, Field, SQLModel

metadata = MetaData()

#: The domain whose mailboxes reject all mail; it stands for addresses that do not exist.
BOUNCING_DOMAIN = "@bounce.example"


class MessageKind(StrEnum):
    """The subject of a message."""

    CONFIRMATION = "confirmation"
    CANCELLATION = "cancellation"


class Delivery(StrEnum):
    """The result of sending a message."""

    SENT = "sent"
    BOUNCED = "bounced"
    ADDRESS_UNKNOWN = "address unknown"


class Base(SQLModel, registry=registry(metadata=metadata)):
    """The base of this service's tables alone, so that several services can share a process."""


class Message(Base, table=True):
    """One message to the customer of one order."""

    order_id: str = Field(primary_key=True)
    kind: MessageKind = Field(primary_key=True, sa_type=AutoString)
    address: str | None
    text: str
    delivery: Delivery = Field(sa_type=AutoString)


def deliver(address: str | None) -> Delivery:
    """Simulate sending a message to this address, and return the result."""
    if address is None:
        return Delivery.ADDRESS_UNKNOWN
    return Delivery.BOUNCED if address.lower().endswith(BOUNCING_DOMAIN) else Delivery.SENT
