"""The history that the golden files show: five orders, a dead letter, an overdue step and two outbox rows."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from sqlalchemy import insert

from tests.cli.conftest import SERVICES
from tests.orders import COMPENSATING, NOON, PENDING, entry, fulfilled_order, paid_order, refused_order, undone
from toolkit.cli.service_discovery import find_service
from toolkit.ids import derived_id
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import dead_letters, outbox, saga_log
from toolkit.persistence.audit_log import audit
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import Entry

#: An order that waits for another attempt, and one that can't be compensated without an operator.
RETRYING, STUCK = "order-4", "order-5"


async def write(directory: Path) -> None:
    """Create the services' databases, and write the history to them."""
    entries = [replace(each, at=NOON + timedelta(seconds=index)) for index, each in enumerate(history())]
    for name in SERVICES:
        database = Database(f"sqlite:///{directory}/{name}.db")
        tables = find_service(f"services.{name}.app:app").tables
        await database.create_tables(*([tables] if tables else []))
        async with database.transaction() as session:
            connection = await session.connection()
            await saga_log.append(connection, [each for each in entries if each.service == name])
            if name == "payment":
                await dead_letters.add(connection, [dead_letter()])
                await outbox.add(connection, rows())
                await connection.execute(insert(overdue), [waiting()])
                await connection.execute(insert(audit), [audit_entry()])
        await database.close()


def history() -> list[Entry]:
    """Return the entries of five orders: fulfilled, overdue, refused, waiting for an attempt, and stuck."""
    return [replace(each, emitted_body=body(each)) for order in (
        fulfilled_order("order-1"), paid_order("order-2"), refused_order("order-3"), retrying(), stuck()
    ) for each in order]  # fmt: skip


def body(of: Entry) -> str | None:
    """Return a body for what an entry emits, as far as it emits anything."""
    return f'{{"order_id": "{of.saga_id}", "reason": "for some reason"}}' if of.emitted_id else None


def retrying() -> list[Entry]:
    """Return an order whose payment failed twice."""
    reserved, executing, _ = paid_order(RETRYING)
    failed = entry(
        RETRYING, "payment", "process_payment", "retrying", PENDING, "InventoryReserved", position=None,
        error="GatewayUnavailableError: no answer",
    )  # fmt: skip
    return [reserved, executing, failed, replace(failed, attempt=2)]


def stuck() -> list[Entry]:
    """Return an order that could not be shipped, and whose payment can't be refunded."""
    refused = [each for each in refused_order(STUCK) if each.step != "send_cancellation_notice"][:4]
    back = undone(STUCK, "payment", "process_payment", "ShipmentFailed", "PaymentRefunded", position=3)
    fault = "retries spent after 5 attempts: GatewayUnavailableError: no answer"
    return [
        *refused,
        replace(back, to_state="compensating", emitted_id=None, emitted_type=None),
        entry(STUCK, "payment", "process_payment", "dead_lettered", COMPENSATING, "ShipmentFailed", position=None,
              error=fault),
    ]  # fmt: skip


def dead_letter() -> DeadLetter:
    """Return the dead letter of the order that is stuck."""
    return DeadLetter(
        id="letter-1", service="payment", reason="retries spent", step="process_payment", attempts=5,
        error="retries spent after 5 attempts: GatewayUnavailableError: no answer",
        traceback="Traceback (most recent call last):\n  line 7\nGatewayUnavailableError: no answer\n",
        message=wire(STUCK, "ShipmentFailed"), at=NOON + timedelta(minutes=1),
    )  # fmt: skip


def rows() -> list[OutboxRow]:
    """Return a retry that waits for its time, and an event that the broker does not accept."""
    later = NOON + timedelta(minutes=2)
    retry = wire(RETRYING, "InventoryReserved", attempt=3)
    return [
        OutboxRow(id="row-1", message=retry, due_at=later, destination="saga.payment"),
        OutboxRow(id="row-2", message=wire("order-2", "PaymentProcessed"), due_at=later, tries=3),
    ]


def waiting() -> dict[str, object]:
    """Return the overdue step of the order that is not shipped."""
    return {
        "saga_id": "order-2", "step": "process_payment", "saga_type": "order", "position": 2, "state": "completed",
        "saga_state": "Pending", "since": NOON, "next_at": NOON, "nudges": 2, "aborted": 0,
    }  # fmt: skip


def audit_entry() -> dict[str, object]:
    """Return an operator's change."""
    return {
        "id": "deed-1", "at": NOON, "actor": "ada@desk", "verb": "redrive", "reason": "the gateway is back",
        "saga_id": STUCK, "subject": "letter-1",
    }  # fmt: skip


def wire(saga_id: str, event: str, *, attempt: int = 1) -> WireMessage:
    """Return an event of an order, with a sensitive field."""
    return WireMessage(
        f'{{"order_id": "{saga_id}", "reason": "gone", "customer_email": "ada@shop.example"}}'.encode(),
        f"shipping.{event}",
        message_id=derived_id("order", saga_id, event),
        correlation_id=saga_id,
        type=event,
        timestamp=NOON,
        headers={"saga-type": "order", "event-version": 1, "attempt": attempt},
    )
