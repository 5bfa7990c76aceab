"""The payment provider of the order saga, as a fake: its failures are scripted, and its charges are counted."""

from __future__ import annotations

from services.payment.gateway import Charged, Declined
from toolkit.testing import OutsideSystem


class FakeGateway(OutsideSystem):
    async def charge(self, key: str, amount: int, *, payment_method: str) -> Charged | Declined:
        declined = Declined("the card was declined")
        if payment_method == "card_declined":
            return declined
        return await self.perform("charge", key, Charged(amount), refusal=declined)

    async def void(self, key: str) -> None:
        await self.undo("void", key)

    async def refund(self, key: str, amount: int) -> None:
        await self.undo("refund", key)
