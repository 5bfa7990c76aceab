"""Log entries of the order saga, as its four services write them; each list is in the order of cause and effect."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime, timedelta

from toolkit.declaration.events import SagaState
from toolkit.ids import derived_id
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.log_entry import LogEntry

NOON = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
STARTED, PENDING, COMPENSATING = SagaState.STARTED, SagaState.PENDING, SagaState.COMPENSATING
COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED


def fulfilled_order(saga_id: str = "order-1") -> list[Entry]:
    """An order that nobody refused."""
    return [
        *paid_order(saga_id),
        done(saga_id, "shipping", "create_shipment", PENDING, "PaymentProcessed", "ShipmentCreated"),
        done(saga_id, "notification", "send_confirmation", COMPLETED, "ShipmentCreated", "OrderFulfilled"),
        confirmed(saga_id, "inventory", "reserve_inventory"),
        confirmed(saga_id, "notification", "send_confirmation"),
        confirmed(saga_id, "payment", "process_payment"),
        confirmed(saga_id, "shipping", "create_shipment"),
    ]


def paid_order(saga_id: str = "order-2") -> list[Entry]:
    """An order that is still on its way to the shipping."""
    return [
        reserved(saga_id),
        entry(saga_id, "payment", "process_payment", "executing", PENDING, "InventoryReserved", position=1),
        done(saga_id, "payment", "process_payment", PENDING, "InventoryReserved", "PaymentProcessed", position=2),
    ]


def refused_order(saga_id: str = "order-3") -> list[Entry]:
    """An order that can't be shipped, and whose payment and goods are given back."""
    return [
        *paid_order(saga_id),
        entry(
            saga_id, "shipping", "create_shipment", "failed", COMPENSATING, "PaymentProcessed", "ShipmentFailed",
            error="we do not ship to AQ",
        ),
        undone(saga_id, "payment", "process_payment", "ShipmentFailed", "PaymentRefunded", position=3),
        undone(saga_id, "inventory", "reserve_inventory", "PaymentRefunded", "InventoryReleased", position=2),
        done(saga_id, "notification", "send_cancellation_notice", FAILED, "InventoryReleased", "OrderFailed"),
        ended(saga_id, "inventory", "reserve_inventory"),
        ended(saga_id, "payment", "process_payment"),
        ended(saga_id, "shipping", "create_shipment"),
    ]  # fmt: skip


def reserved(saga_id: str) -> Entry:
    """The saga's first step."""
    return done(saga_id, "inventory", "reserve_inventory", STARTED, "OrderCreated", "InventoryReserved")


def done(
    saga_id: str, service: str, step: str, state: SagaState, took: str, emitted: str, *, position: int = 1
) -> Entry:
    """A step that is done."""
    return entry(saga_id, service, step, "completed", state, took, emitted, position=position)


def undone(saga_id: str, service: str, step: str, took: str, emitted: str, *, position: int) -> Entry:
    """A step that is undone."""
    return entry(saga_id, service, step, "compensated", COMPENSATING, took, emitted, position=position)


def confirmed(saga_id: str, service: str, step: str) -> Entry:
    """A step that learns that the saga has ended well; the message that says so is no event of the saga."""
    return entry(saga_id, service, step, "confirmed", COMPLETED, "SagaEnded", position=9)


def ended(saga_id: str, service: str, step: str) -> Entry:
    """A step that learns that the saga has ended failed."""
    return entry(saga_id, service, step, "ended", FAILED, "SagaEnded", position=None)


def entry(
    saga_id: str,
    service: str,
    step: str,
    to_state: str,
    saga_state: SagaState,
    took: str,
    emitted: str | None = None,
    *,
    position: int | None = 1,
    error: str | None = None,
    at: datetime = NOON,
) -> Entry:
    """One entry; the ids of events are made of their names, so that what is emitted is what is taken."""
    return Entry(
        service=service,
        saga_id=saga_id,
        saga_type="order",
        step=step,
        position=position,
        from_state=None,
        to_state=to_state,
        saga_state=saga_state,
        event_id=derived_id("order", saga_id, took),
        event_type=took,
        emitted_id=derived_id("order", saga_id, emitted) if emitted else None,
        emitted_type=emitted,
        error=error,
        at=at,
    )


def shown(entries: list[Entry]) -> list[LogEntry]:
    """Return entries as readers see them, a second apart."""
    return [LogEntry.of(asdict(each) | {"at": NOON + timedelta(seconds=index)}) for index, each in enumerate(entries)]


def by_service(entries: list[LogEntry]) -> dict[str, list[LogEntry]]:
    """Return entries parted by the service that wrote them, in their order."""
    logs: dict[str, list[LogEntry]] = {}
    for each in entries:
        logs.setdefault(each.service, []).append(each)
    return logs
