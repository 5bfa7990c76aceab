import asyncio
import json

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from services.events import (
    InventoryReleased,
    InventoryReservationFailed,
    InventoryReserved,
    OrderCreated,
    PaymentFailed,
)
from services.inventory.models import STOCK_FILE, Reservation, ReservationLine, Stock, metadata, seed_stock
from services.inventory.steps import release_inventory, reserve_inventory
from toolkit.declaration.events import documented_example


@pytest.fixture
def tables():
    return metadata


@pytest.fixture
async def stocked(session: AsyncSession) -> AsyncSession:
    session.add_all(
        [
            Stock(sku="TEA-CUP", on_hand=10, unit_price=1200),
            Stock(sku="TEA-POT", on_hand=3, unit_price=3950),
            Stock(sku="LAST-ONE", on_hand=1, unit_price=19900),
        ]
    )
    await session.commit()
    return session


def order(*items: tuple[str, int], order_id: str = "order-1") -> OrderCreated:
    lines = [{"sku": sku, "quantity": quantity} for sku, quantity in items]
    return OrderCreated.model_validate(documented_example(OrderCreated) | {"order_id": order_id, "items": lines})


async def levels(session: AsyncSession) -> dict[str, tuple[int, int]]:
    rows = await session.exec(select(Stock), execution_options={"populate_existing": True})
    return {stock.sku: (stock.on_hand, stock.reserved) for stock in rows}


async def reserve_as_the_toolkit_does(
    session: AsyncSession, event: OrderCreated
) -> InventoryReserved | InventoryReservationFailed:
    savepoint = await session.begin_nested()
    result = await reserve_inventory(event, session)
    await (savepoint.commit() if isinstance(result, InventoryReserved) else savepoint.rollback())
    return result


async def test_ordered_goods_move_from_on_hand_to_reserved(stocked):
    event = order(("TEA-POT", 1), ("TEA-CUP", 4))

    result = await reserve_inventory(event, stocked)
    await stocked.commit()

    assert await levels(stocked) == {"TEA-POT": (2, 1), "TEA-CUP": (6, 4), "LAST-ONE": (1, 0)}
    assert result == InventoryReserved(
        order_id="order-1",
        reservation_id=(await stocked.get_one(Reservation, "order-1")).reservation_id,
        total_amount=3950 + 4 * 1200,
        payment_method="card_ok",
        shipping_address=event.shipping_address,
        customer_email="ada@shop.example",
    )


async def test_a_sku_ordered_twice_counts_in_total(stocked):
    event = order(("TEA-POT", 2), ("TEA-CUP", 1), ("TEA-POT", 2))

    result = await reserve_inventory(event, stocked)

    assert result == InventoryReservationFailed(
        order_id="order-1", reason="TEA-POT is short: 4 asked for, 3 there", customer_email="ada@shop.example"
    )


async def test_an_unknown_sku_is_refused_by_name(stocked):
    event = order(("UNICORN", 1))

    result = await reserve_inventory(event, stocked)

    assert isinstance(result, InventoryReservationFailed)
    assert result.reason == "UNICORN is not among our goods"


async def test_a_partly_short_order_reserves_nothing(stocked):
    event = order(("TEA-CUP", 4), ("TEA-POT", 1), ("LAST-ONE", 2))

    result = await reserve_as_the_toolkit_does(stocked, event)
    await stocked.commit()

    assert isinstance(result, InventoryReservationFailed)
    assert await levels(stocked) == {"TEA-CUP": (10, 0), "TEA-POT": (3, 0), "LAST-ONE": (1, 0)}
    assert (await stocked.exec(select(Reservation))).all() == []
    assert (await stocked.exec(select(ReservationLine))).all() == []


async def test_goods_of_a_refused_order_are_available(stocked):
    greedy, modest = order(("TEA-POT", 3), ("LAST-ONE", 2)), order(("TEA-POT", 3), order_id="order-2")

    results = [await reserve_as_the_toolkit_does(stocked, each) for each in (greedy, modest)]
    await stocked.commit()

    assert [type(result) for result in results] == [InventoryReservationFailed, InventoryReserved]
    assert (await levels(stocked))["TEA-POT"] == (0, 3)


async def test_released_goods_are_on_hand_again(engine, stocked):
    original = await reserve_inventory(order(("TEA-POT", 1), ("TEA-CUP", 4)), stocked)
    await stocked.commit()

    async with AsyncSession(engine) as later:
        event = PaymentFailed(order_id="order-1", reason="the card was declined")
        result = await release_inventory(event, original, later)
        await later.commit()

    assert await levels(stocked) == {"TEA-POT": (3, 0), "TEA-CUP": (10, 0), "LAST-ONE": (1, 0)}
    assert result == InventoryReleased(
        order_id="order-1", reason="the card was declined", customer_email="ada@shop.example"
    )
    assert (await stocked.get_one(Reservation, "order-1", populate_existing=True)).is_released


async def test_one_of_ten_concurrent_orders_succeeds(engine, stocked):
    orders = [order(("TEA-CUP", 1), ("LAST-ONE", 1), order_id=f"order-{number}") for number in range(10)]

    results = await asyncio.gather(*(reserve_alone(engine, each) for each in orders))

    assert [type(each) for each in results].count(InventoryReserved) == 1
    assert await levels(stocked) == {"TEA-CUP": (9, 1), "TEA-POT": (3, 0), "LAST-ONE": (0, 1)}


async def test_orders_for_the_same_goods_never_deadlock(engine, stocked):
    forwards, backwards = (("TEA-CUP", 1), ("TEA-POT", 1)), (("TEA-POT", 1), ("TEA-CUP", 1))
    orders = [order(*(backwards if n % 2 else forwards), order_id=f"order-{n}") for n in range(6)]

    results = await asyncio.gather(*(reserve_alone(engine, each) for each in orders))

    assert [type(each) for each in results].count(InventoryReserved) == 3
    assert await levels(stocked) == {"TEA-CUP": (7, 3), "TEA-POT": (0, 3), "LAST-ONE": (1, 0)}


async def reserve_alone(engine: AsyncEngine, event: OrderCreated) -> InventoryReserved | InventoryReservationFailed:
    async with AsyncSession(engine) as session:
        result = await reserve_as_the_toolkit_does(session, event)
        await session.commit()
        return result


async def test_the_database_refuses_negative_stock(stocked):
    pot = await stocked.get_one(Stock, "TEA-POT")

    pot.on_hand = -1

    with pytest.raises(IntegrityError):
        await stocked.commit()


async def test_two_starting_replicas_seed_each_sku_once(engine, session):
    await asyncio.gather(seed_alone(engine), seed_alone(engine))

    goods = {each["sku"]: (each["on_hand"], 0) for each in json.loads(STOCK_FILE.read_text())}
    assert await levels(session) == goods
    assert goods["SOLD-OUT"] == (0, 0)
    assert goods["LAST-ONE"] == (1, 0)


async def test_a_later_start_leaves_the_stock_alone(engine, session):
    await seed_alone(engine)
    await reserve_alone(engine, order(("LAST-ONE", 1)))

    await seed_alone(engine)

    assert (await levels(session))["LAST-ONE"] == (0, 1)


async def seed_alone(engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await seed_stock(session)
        await session.commit()
