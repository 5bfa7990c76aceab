from pathlib import Path

import pytest
from sqlalchemy.exc import IntegrityError
from sqlmodel import select

from services.events import (
    InventoryReserved,
    OrderCreated,
    PaymentFailed,
    PaymentProcessed,
    PaymentRefunded,
    ShipmentCancelled,
    ShipmentFailed,
)
from services.payment.gateway import GatewayUnavailableError, open_gateway
from services.payment.models import Payment, metadata
from services.payment.steps import payment, process_payment, refund_payment
from toolkit import IdempotencyKey, Settings
from toolkit.declaration.events import documented_example

KEY = IdempotencyKey("order-1:process_payment")


@pytest.fixture
def tables():
    return metadata


@pytest.fixture
async def gateway(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("PAYMENT_GATEWAY_URL", raising=False)
    async with open_gateway(Settings(data_dir=tmp_path)) as gateway:
        yield gateway


def reserved(payment_method: str = "card_ok") -> InventoryReserved:
    return InventoryReserved(
        order_id="order-1",
        reservation_id="reservation-1",
        total_amount=8750,
        payment_method=payment_method,
        shipping_address=documented_example(OrderCreated)["shipping_address"],
        customer_email="ada@shop.example",
    )


async def test_the_money_for_the_reserved_goods_is_taken(session, gateway):
    event = reserved()

    result = await process_payment(event, session, KEY, gateway)
    await session.commit()

    assert result == PaymentProcessed(
        order_id="order-1",
        amount=8750,
        shipping_address=event.shipping_address,
        customer_email="ada@shop.example",
    )
    assert (await session.get_one(Payment, "order-1")).kept == await gateway.kept() == 8750


async def test_a_declined_card_refuses_with_the_reason(session, gateway):
    result = await process_payment(reserved("card_declined"), session, KEY, gateway)

    assert result == PaymentFailed(order_id="order-1", reason="the card was declined")
    assert (await session.exec(select(Payment))).all() == []


async def test_an_unavailable_provider_raises_before_session_use(session, gateway):
    with pytest.raises(GatewayUnavailableError):
        await process_payment(reserved("card_down"), session, KEY, gateway)

    assert not session.in_transaction()


async def test_the_steps_attempts_outlast_a_flaky_provider(session, gateway):
    attempts = payment.steps[0].retry.attempts

    failures = 0
    while failures < attempts:
        try:
            result = await process_payment(reserved("card_flaky"), session, KEY, gateway)
            break
        except GatewayUnavailableError:
            failures += 1

    assert failures == 2
    assert isinstance(result, PaymentProcessed)


async def test_a_payment_repeated_after_crashes_charges_once(session, gateway):
    await process_payment(reserved(), session, KEY, gateway)
    await session.rollback()

    result = await process_payment(reserved(), session, KEY, gateway)
    await session.commit()

    assert isinstance(result, PaymentProcessed)
    assert (await session.get_one(Payment, "order-1")).captured == await gateway.kept() == 8750


async def test_a_refund_gives_back_exactly_what_was_taken(session, gateway):
    original = await process_payment(reserved(), session, KEY, gateway)
    await session.commit()

    event = ShipmentFailed(order_id="order-1", reason="we do not ship to AQ")
    result = await refund_payment(event, original, session, KEY, gateway)
    await session.commit()

    assert result == PaymentRefunded(order_id="order-1", reason="we do not ship to AQ", amount=8750)
    assert (await session.get_one(Payment, "order-1")).kept == await gateway.kept() == 0


async def test_a_refund_repeated_after_crashes_refunds_once(session, gateway):
    original = await process_payment(reserved(), session, KEY, gateway)
    await session.commit()
    event = ShipmentCancelled(order_id="order-1", reason="nobody@bounce.example does not exist")
    await refund_payment(event, original, session, KEY, gateway)
    await session.rollback()

    await refund_payment(event, original, session, KEY, gateway)
    await session.commit()

    assert (await session.get_one(Payment, "order-1")).refunded == 8750
    assert await gateway.kept() == 0


@pytest.mark.parametrize("was_charged", [True, False])
async def test_a_payment_with_unknown_outcome_is_voided(session, gateway, was_charged):
    if was_charged:
        await gateway.charge(KEY, 8750, payment_method="card_ok")

    event = ShipmentFailed(order_id="order-1", reason="the step gave up")
    result = await refund_payment(event, None, session, KEY, gateway)

    assert result == PaymentRefunded(order_id="order-1", reason="the step gave up")
    assert isinstance(await process_payment(reserved(), session, KEY, gateway), PaymentFailed)
    assert await gateway.kept() == 0


async def test_the_database_refuses_refunds_beyond_the_capture(session):
    session.add(Payment(order_id="order-1", captured=100, refunded=101))

    with pytest.raises(IntegrityError):
        await session.commit()
