"""The ledger of the sandbox provider: one row per charge, and the transitions of a charge.

A charge takes money at most once; a voided or refunded charge keeps none and never takes any again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table

WORKING_CARDS = frozenset({"card_ok", "card_flaky", "card_slow"})
#: How often `card_flaky` fails before it works; the step has more attempts.
FLAKY_FAILURES = 2


class RefundRefusedError(Exception):
    """The payment provider can't refund an amount that was not taken under this key."""


class ChargeState(StrEnum):
    """The state of a charge; only an open one can still take money."""

    OPEN = "open"
    CHARGED = "charged"
    DECLINED = "declined"
    VOIDED = "voided"
    REFUNDED = "refunded"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One row of the ledger: `taken` and `returned` in minor units, and the reason why no money is kept."""

    key: str
    state: ChargeState = ChargeState.OPEN
    taken: int = 0
    returned: int = 0
    reason: str = ""
    attempts: int = 0

    @property
    def kept(self) -> int:
        """The amount that the shop keeps."""
        return self.taken - self.returned

    def charge(self, amount: int, payment_method: str) -> Charge:
        """Return the charge after one more attempt to take the money; a settled charge only counts the attempt."""
        tried = replace(self, attempts=self.attempts + 1)
        if self.state is not ChargeState.OPEN or _fails(payment_method, tried.attempts):
            return tried
        if payment_method in WORKING_CARDS:
            return replace(tried, state=ChargeState.CHARGED, taken=amount)
        return replace(tried, state=ChargeState.DECLINED, reason=_why_declined(payment_method))

    def void(self) -> Charge:
        """Return the charge voided: all money is returned, and none can be taken later."""
        if self.state in (ChargeState.OPEN, ChargeState.CHARGED):
            return replace(self, state=ChargeState.VOIDED, returned=self.taken, reason="the charge was voided")
        return self

    def refund(self, amount: int) -> Charge:
        """Return the charge with this amount refunded, once.

        Raises:
            RefundRefusedError: this amount was not taken.
        """
        if self.state is ChargeState.CHARGED and amount <= self.taken:
            return replace(self, state=ChargeState.REFUNDED, returned=amount, reason="the charge was refunded")
        if self.state is ChargeState.REFUNDED and amount == self.returned:
            return self
        raise RefundRefusedError(
            f"refund of {amount} for {self.key}: the charge is {self.state}, {self.taken} taken and "
            f"{self.returned} returned; look it up in the ledger"
        )


metadata = MetaData()
charges = Table(
    "charge",
    metadata,
    Column("key", String, primary_key=True),
    Column("state", String, nullable=False),
    Column("taken", BigInteger, nullable=False),
    Column("returned", BigInteger, nullable=False),
    Column("reason", String, nullable=False),
    Column("attempts", Integer, nullable=False),
)


def _fails(payment_method: str, attempt: int) -> bool:
    return payment_method == "card_down" or (payment_method == "card_flaky" and attempt <= FLAKY_FAILURES)


def _why_declined(payment_method: str) -> str:
    if payment_method == "card_declined":
        return "the card was declined"
    return f"unknown payment method {payment_method!r}"
