"""An order that the inventory refuses costs the orders of its batch no savepoints."""

from __future__ import annotations

from services.events import OrderCreated
from services.inventory.app import app as inventory
from services.inventory.models import Stock
from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loan_messages import message_of
from tests.unit.runtime.copies import statements
from toolkit.declaration.events import documented_example
from toolkit.persistence.database import Database


def order(number: int, quantity: int) -> OrderCreated:
    """Return an order for tea cups, of which there are ten."""
    items = [{"sku": "TEA-CUP", "quantity": quantity}]
    facts = documented_example(OrderCreated) | {"order_id": f"order-{number}", "items": items}
    return OrderCreated.model_validate(facts)


async def test_a_short_order_leaves_its_batch_optimistic(database: Database) -> None:
    assert inventory.tables is not None
    await database.create_tables(inventory.tables)
    async with database.transaction() as session:
        session.add(Stock(sku="TEA-CUP", on_hand=10, unit_price=1200))
    branch = Branch(inventory, database, resources={})
    orders = [order(1, 4), order(2, 11), order(3, 5)]
    messages = [
        message_of(each, at=branch.clock.now(), saga_id=each.order_id, saga_type="order", event_id=each.order_id)
        for each in orders
    ]

    with statements(database) as executed:
        await branch.executor.execute(messages)
    await branch.relay.drain()

    assert [each.type for each in branch.publisher.taken] == [
        "InventoryReserved", "InventoryReservationFailed", "InventoryReserved",
    ]  # fmt: skip
    assert not [each for each in executed if "SAVEPOINT" in each]
