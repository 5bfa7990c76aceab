"""Orders as four services would have written them, put into their databases in bulk, without running any.

Ten orders began each second until now: most were fulfilled, some refused on their way and undone, the latest are still
under way, and a few stand still for hours, with a dead letter and an overdue step.
"""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
from sqlalchemy import make_url

from toolkit.declaration.events import SagaState
from toolkit.ids import derived_id, new_id
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import dead_letters
from toolkit.persistence.outbox import outbox
from toolkit.persistence.overdue_steps import overdue
from toolkit.persistence.saga_log import Entry, saga_log

SERVICES = ("inventory", "payment", "shipping", "notification")
#: The orders that begin each second.
PACE = 10
#: The order that was retried until it had this number of entries at payment.
LONGEST, ITS_ENTRIES = "order-longest", 200
#: The number of the last orders, which are in progress; one order in the second number is stuck.
_UNDER_WAY, _STUCK = 300, 4_000
#: One order in this number left a dead letter.
_LETTER = 100

_BODY = {
    "customer_email": "ada@shop.example",
    "payment_method": "card_ok",
    "total_amount": 4_900,
    "shipping_address": {
        "name": "Ada Lovelace", "street": "12 St James's Square", "city": "London", "postal_code": "SW1Y 4JH",
        "country": "GB",
    },
}  # fmt: skip
_STARTED, _PENDING, _BACK = SagaState.STARTED, SagaState.PENDING, SagaState.COMPENSATING
_DONE, _FAILED = SagaState.COMPLETED, SagaState.FAILED

#: By name, a table's columns and rows.
Tables = dict[str, tuple[list[str], list[tuple[Any, ...]]]]
#: A move: service, step, position, the state that it leads to, the saga's then, and the event that it takes and emits.
Move = tuple[str, str, int | None, str, SagaState, str, str | None]

_RESERVED: Move = ("inventory", "reserve_inventory", 1, "completed", _STARTED, "OrderCreated", "InventoryReserved")
_PAYING: Move = ("payment", "process_payment", 1, "executing", _PENDING, "InventoryReserved", None)
_RETRYING: Move = ("payment", "process_payment", None, "retrying", _PENDING, "InventoryReserved", None)
_PAID: Move = ("payment", "process_payment", 2, "completed", _PENDING, "InventoryReserved", "PaymentProcessed")
_SHIPPED: Move = ("shipping", "create_shipment", 1, "completed", _PENDING, "PaymentProcessed", "ShipmentCreated")
_NOTIFIED: Move = ("notification", "send_confirmation", 1, "completed", _DONE, "ShipmentCreated", "OrderFulfilled")
_CONFIRMED: tuple[Move, ...] = (
    ("inventory", "reserve_inventory", 2, "confirmed", _DONE, "SagaEnded", None),
    ("payment", "process_payment", 3, "confirmed", _DONE, "SagaEnded", None),
    ("shipping", "create_shipment", 2, "confirmed", _DONE, "SagaEnded", None),
    ("notification", "send_confirmation", 2, "confirmed", _DONE, "SagaEnded", None),
)
_NOT_PAID: Move = ("payment", "process_payment", 2, "failed", _BACK, "InventoryReserved", "PaymentFailed")
_NOT_SHIPPED: Move = ("shipping", "create_shipment", 1, "failed", _BACK, "PaymentProcessed", "ShipmentFailed")
_REFUNDED: Move = ("payment", "process_payment", 3, "compensated", _BACK, "ShipmentFailed", "PaymentRefunded")
_GIVEN_UP: Move = ("payment", "process_payment", None, "dead_lettered", _BACK, "ShipmentFailed", None)


def _released(by: str) -> Move:
    return "inventory", "reserve_inventory", 2, "compensated", _BACK, by, "InventoryReleased"


_SORRY: Move = ("notification", "send_cancellation_notice", 1, "completed", _FAILED, "InventoryReleased", "OrderFailed")


def _ended(service: str, step: str) -> Move:
    return service, step, None, "ended", _FAILED, "SagaEnded", None


_ENDED = (_ended("inventory", "reserve_inventory"), _ended("payment", "process_payment"))
_FORWARD = (_RESERVED, _PAYING, _PAID, _SHIPPED, _NOTIFIED)

FULFILLED = (*_FORWARD, *_CONFIRMED)
RETRIED = (_RESERVED, _PAYING, _RETRYING, _PAID, _SHIPPED, _NOTIFIED, *_CONFIRMED)
DECLINED = (_RESERVED, _PAYING, _NOT_PAID, _released("PaymentFailed"), _SORRY, *_ENDED)
UNDELIVERABLE = (
    _RESERVED, _PAYING, _PAID, _NOT_SHIPPED, _REFUNDED, _released("PaymentRefunded"), _SORRY, *_ENDED,
    _ended("shipping", "create_shipment"),
)  # fmt: skip
STUCK = (_RESERVED, _PAYING, _PAID, _NOT_SHIPPED, _GIVEN_UP)


@dataclass(frozen=True, slots=True)
class SampleOrders:
    """This many orders; the last one began just now."""

    number: int
    now: datetime

    def id_of(self, number: int) -> str:
        """Return the id of the order with this number."""
        return f"order-{number:07}"

    def stuck(self) -> list[int]:
        """Return the orders that stand still."""
        return list(range(_STUCK - 1, self.number - _UNDER_WAY, _STUCK))

    def timeline(self, number: int) -> tuple[Move, ...]:
        """Return what an order goes through."""
        if number >= self.number - _UNDER_WAY:
            return _FORWARD[: 1 + number % 4]
        if number % _STUCK == _STUCK - 1:
            return STUCK
        return {7: DECLINED, 17: DECLINED, 27: DECLINED, 37: UNDELIVERABLE, 47: RETRIED}.get(number % 50, FULFILLED)

    def began(self, number: int) -> datetime:
        """Return when an order began."""
        return self.now - timedelta(seconds=(self.number - number) / PACE)

    def entries(self, service: str) -> list[Entry]:
        """Return the service's log, in the order of time."""
        found = [each for number in range(self.number) for each in self._of(number) if each.service == service]
        if service == "payment":
            found += self._longest()
        return sorted(found, key=lambda entry: entry.at)

    def _of(self, number: int) -> Iterator[Entry]:
        dice = random.Random(number)
        saga_id, at = self.id_of(number), self.began(number)
        ids = {"SagaEnded": _event_id(at, dice)}
        for service, step, position, to, state, took, emitted in self.timeline(number):
            at += timedelta(milliseconds=20 + 30 * dice.random())
            if emitted:
                ids[emitted] = _event_id(at, dice)
            yield Entry(
                service=service,
                saga_id=saga_id,
                saga_type="order",
                step=step,
                position=position,
                from_state="completed" if position and position > 1 else None,
                to_state=to,
                saga_state=state,
                event_id=ids.get(took) or derived_id("order", saga_id, took),
                event_type=took,
                emitted_id=ids.get(emitted or ""),
                emitted_type=emitted,
                emitted_body=json.dumps({"order_id": saga_id} | _BODY) if emitted else None,
                error="we do not ship to AQ" if state is _BACK else None,
                traceparent=f"00-{dice.getrandbits(128):032x}-{dice.getrandbits(64):016x}-01",
                at=at,
            )

    def _longest(self) -> Iterator[Entry]:
        first, note = (
            replace(next(each for each in self._of(0) if each.to_state == to), saga_id=LONGEST)
            for to in ("executing", "completed")
        )
        yield replace(first, at=self.now - timedelta(hours=1))
        for number in range(1, ITS_ENTRIES):
            at = self.now - timedelta(hours=1) + timedelta(seconds=number)
            yield replace(note, service="payment", step="process_payment", position=number + 1, at=at)


def _event_id(at: datetime, dice: random.Random) -> str:
    """Return a UUIDv7 of that moment."""
    milliseconds = int(at.timestamp() * 1000)
    return str(UUID(int=milliseconds << 80 | 7 << 76 | dice.getrandbits(12) << 64 | 2 << 62 | dice.getrandbits(62)))


def _dead_letters(orders: SampleOrders, service: str) -> Iterator[dict[str, Any]]:
    chosen = sorted({*range(0, orders.number, _LETTER), *orders.stuck()}) if service == "payment" else []
    for number in chosen:
        at = orders.began(number) + timedelta(seconds=5)
        yield {
            "id": new_id(), "service": service, "reason": "retries spent" if number % 3 else "schema",
            "error": "GatewayUnavailableError: the gateway is away", "traceback": None,
            "saga_type": "order", "saga_id": orders.id_of(number), "step": "process_payment",
            "event_type": "ShipmentFailed", "message_id": new_id(), "routing_key": "shipping.ShipmentFailed",
            "sent_at": at, "headers": "{}",
            "body": json.dumps({"order_id": orders.id_of(number), "reason": "we do not ship to AQ"}).encode(),
            "attempts": 1, "first_at": at, "last_at": at, "fingerprint": f"letter {number}",
        }  # fmt: skip


def _overdue(orders: SampleOrders, service: str) -> Iterator[dict[str, Any]]:
    for number in orders.stuck() if service in ("inventory", "payment") else []:
        yield {
            "saga_id": orders.id_of(number), "saga_type": "order", "position": 1, "state": "completed",
            "step": "reserve_inventory" if service == "inventory" else "process_payment", "saga_state": "Pending",
            "since": orders.began(number), "next_at": orders.now + timedelta(days=1), "nudges": 3, "aborted": 0,
        }  # fmt: skip


def _outgoing(orders: SampleOrders, service: str) -> Iterator[dict[str, Any]]:
    for number in range(orders.number - 20, orders.number):
        at = orders.began(number)
        yield {
            "id": new_id(), "message_id": _event_id(at, random.Random(number)), "saga_id": orders.id_of(number),
            "event_type": "InventoryReserved", "routing_key": "inventory.InventoryReserved", "destination": None,
            "occurred_at": at, "headers": "{}", "body": json.dumps(_BODY).encode(), "optional": 0, "due_at": at,
            "tries": 0,
        }  # fmt: skip


def tables_of(orders: SampleOrders, service: str) -> Tables:
    """Return a service's tables, each with its columns and rows."""
    columns = [each.name for each in fields(Entry)]
    return {
        saga_log.name: (
            columns,
            [tuple(getattr(entry, name) for name in columns) for entry in orders.entries(service)],
        ),
        dead_letters.name: _table(_dead_letters(orders, service)),
        overdue.name: _table(_overdue(orders, service)),
        outbox.name: _table(_outgoing(orders, service)),
    }


async def fill(url: str, tables: Tables) -> None:
    """Make a service's tables in its database, and fill them."""
    database = Database(url)
    await database.create_tables()
    await database.close()
    await (_fill_postgres if url.startswith("postgresql") else _fill_sqlite)(url, tables)


def _table(rows: Iterator[dict[str, Any]]) -> tuple[list[str], list[tuple[Any, ...]]]:
    listed = list(rows)
    return (list(listed[0]) if listed else []), [tuple(row.values()) for row in listed]


async def _fill_postgres(url: str, tables: Tables) -> None:
    connection = await asyncpg.connect(url)
    for table, (columns, rows) in tables.items():
        if rows:
            await connection.copy_records_to_table(table, columns=columns, records=rows)
    await connection.execute("ANALYZE")
    await connection.close()


async def _fill_sqlite(url: str, tables: Tables) -> None:
    connection = sqlite3.connect(str(make_url(url).database))
    for table, (columns, rows) in tables.items():
        if rows:
            places = ", ".join("?" * len(columns))
            statement = f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({places})"
            connection.executemany(statement, (tuple(map(_plain, row)) for row in rows))
    connection.commit()
    connection.close()


def _plain(value: Any) -> Any:
    """Return a value as SQLAlchemy keeps it in SQLite."""
    return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S.%f") if isinstance(value, datetime) else value
