"""The payment service's API with a token, and its dead letters."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import httpx

from services.payment.app import app as payment_service
from toolkit.api import Access, ApiContext, api_routes
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.messaging.envelope import WireMessage
from toolkit.persistence import audit_log, dead_letters, outbox
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.known_steps import known_steps
from toolkit.persistence.outbox import OutboxRow
from toolkit.persistence.overdue_steps import overdue

TOKEN = "open-sesame-now"


SHOWING = {"Authorization": f"Bearer {TOKEN}"}


WHY = {"reason": "the gateway is back", "actor": "ada@desk"}


Client = Callable[..., httpx.AsyncClient]


async def nothing_is_ready() -> dict[str, bool]:
    return {}


def routes_of(database: Database, readiness: Any, token: TokenDigest | None) -> list[Any]:
    context = ApiContext(
        service=payment_service, contract=Contract.of(payment_service), database=database, readiness=readiness,
        queue="saga.payment", clock=SystemClock(),
    )  # fmt: skip
    return api_routes(context, Access("payment", token=token))


def dead_letter_of(saga_id: str) -> DeadLetter:
    message = WireMessage(
        b'{"secret": "ada@shop.example"}',
        "shipping.ShipmentFailed",
        message_id=f"message of {saga_id}",
        correlation_id=saga_id,
        type="ShipmentFailed",
        headers={"saga-type": "order", "attempt": 5},
    )
    return DeadLetter(
        id=f"dead-letter-{saga_id}", service="payment", reason="retries spent", error="gateway away", message=message,
        step="process_payment", at=datetime.now(UTC), traceback="line 7",
    )  # fmt: skip


async def audited(database: Database) -> list[tuple[str, str, str]]:
    async with database.reading() as connection:
        return [(row.actor, row.verb, row.reason) for row in await audit_log.listed(connection)]


async def write_backlog(url: str) -> None:
    """Write dead letters, outbox rows, an overdue step and an undeclared step."""
    database, now = Database(url), SystemClock().now()
    wire = WireMessage(b"{}", "payment.PaymentProcessed", message_id="e", type="PaymentProcessed", timestamp=now)
    late = {
        "saga_id": "order-2", "step": "process_payment", "saga_type": "order", "position": 2, "state": "completed",
        "saga_state": "Pending", "since": now, "next_at": now, "nudges": 0, "aborted": 0,
    }  # fmt: skip
    async with database.transaction() as session:
        connection = await session.connection()
        await dead_letters.add(connection, [dead_letter_of("order-1"), dead_letter_of("order-2")])
        await outbox.add(connection, [OutboxRow(id=f"row-{number}", message=wire, due_at=now) for number in range(3)])
        await connection.execute(overdue.insert().values(late))
        noted = {"service": "payment", "saga_type": "order", "step": "charge_card"}
        await connection.execute(known_steps.insert().values(noted))
    await database.close()
