"""The order shop with a console: four services and `saga console` as processes, on a real broker."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
from pydantic import SecretStr

from services.events import InventoryReservationFailed, OrderCreated
from tests.console.background import Background
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.end_to_end.placed_orders import SERVICES
from tests.eventually import eventually
from toolkit import Settings
from toolkit.client.http_client import HttpClient
from toolkit.declaration.events import SagaState, documented_example
from toolkit.ids import derived_id, new_id
from toolkit.messaging.envelope import Envelope
from toolkit.persistence import dead_letters, saga_log
from toolkit.persistence.dead_letters import DeadLetter, Selection
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import Note, StepState

TOKEN = "the-shop's-own-token"
#: Sagas are overdue soon, and only the test aborts them.
_WATCHED = {
    "SAGA_API_TOKEN": TOKEN,
    "SAGA_OVERDUE_AFTER": "2",
    "SAGA_NUDGE_EVERY": "1h",
    "SAGA_ABORT_AFTER": "1h",
    "SAGA_WATCH_EVERY": "0.2",
}


class Shop:
    """The processes, with the actions of a customer and of an operator."""

    def __init__(self, broker_url: str, directory: Path, exchange: str, background: Background) -> None:
        self._background = background
        settings = Settings(broker_url=broker_url, exchange=exchange, data_dir=directory)
        self.fleet = Fleet(settings, sqlite_databases(directory), environment=_WATCHED)
        self._console: subprocess.Popen[str] | None = None
        self._client = httpx.Client(trust_env=False, timeout=10)
        self.url = ""

    def open(self) -> None:
        """Start all services and the console."""
        for name in SERVICES:
            self._background.run(self.fleet.launch(name))
        self.url = self._start_console()
        for replica in self.fleet.replicas:
            self._background.run(eventually(replica.is_ready, what=f"{replica.name} ready", within=90))

    def close(self) -> None:
        """Stop everything."""
        if self._console:
            self._console.terminate()
            self._console.wait(10)
        self._background.run(self.fleet.stop())

    @property
    def addresses(self) -> dict[str, str]:
        """The address of each service."""
        return {replica.name: f"http://127.0.0.1:{replica.port}" for replica in self.fleet.replicas}

    def clients(self, token: str | None = TOKEN) -> list[HttpClient]:
        """Return the services' clients, for another console."""
        shown = SecretStr(token) if token else None
        return [HttpClient(name, url, token=shown) for name, url in self.addresses.items()]

    def place(self, **changes: Any) -> str:
        """Place an order, and return its id."""
        return self.place_all([changes])[0]

    def place_all(self, orders: Sequence[dict[str, Any]]) -> list[str]:
        """Place orders, and return their ids."""
        placed = []
        for changes in orders:
            example = documented_example(OrderCreated) | {"order_id": f"order-{new_id()[-12:]}"} | changes
            placed.append(OrderCreated.model_validate(example))
        self._background.run(self.fleet.place(placed))
        return [order.order_id for order in placed]

    def wait_for_end(self, order: str, *, within: float = 30) -> None:
        """Wait until all services with entries of the order have its end."""

        async def has_ended() -> bool:
            states = [self.state(name, order) for name in SERVICES]
            return any(states) and all(state in (None, "Completed", "Failed") for state in states)

        self._background.run(eventually(has_ended, within=within, every=0.1, what=f"the end of {order}"))

    def wait_till_overdue(self, service: str, orders: Sequence[str]) -> None:
        """Wait until a service's steps of these orders are overdue."""

        async def are_overdue() -> bool:
            rows = self._client.get(f"{self.addresses[service]}/overdue?limit=1000").json()["overdue"]
            return set(orders) <= {row["saga_id"] for row in rows}

        self._background.run(eventually(are_overdue, every=0.2, what="overdue steps"))

    def state(self, service: str, order: str) -> str | None:
        """Return an order's saga state in one service."""
        entries = self.entries(service, order)
        return str(entries[-1]["saga_state"]) if entries else None

    def entries(self, service: str, order: str) -> list[dict[str, Any]]:
        """Return an order's log entries in one service."""
        answer = self._client.get(f"{self.addresses[service]}/sagas/{order}")
        return list(answer.json().get("entries", []))

    def kill(self, service: str) -> None:
        """Kill a service; its port stays reserved."""
        self._background.run(self._kill(service))

    def revive(self, service: str) -> None:
        """Start a stopped service again, at its old port."""
        if not self.fleet.running(service):
            self._background.run(self._revive(service))

    def dead_letter(self, count: int) -> list[str]:
        """Add dead letters to the notification service, as its step leaves them after its last attempt."""
        now = datetime.now(UTC)
        orders = [f"order-{new_id()[-8:]}-{number}" for number in range(count)]
        added = [_dead_letter(order, now - timedelta(minutes=2), number) for number, order in enumerate(orders)]
        self._background.run(self._refuse([_refusal(each) for each in added]))
        self._background.run(self._add(added, [_note(each) for each in added]))
        return orders

    def dead_letter_again(self, order: str) -> None:
        """Add one more dead letter of an order to the notification service."""
        self._background.run(self._add([_dead_letter(order, datetime.now(UTC), 0)], []))

    def drop(self, order: str) -> None:
        """Delete an order's dead letters."""
        self._background.run(self._drop(order))

    def dead_letters(self, service: str = "notification") -> int:
        """Return how many dead letters a service has."""
        return int(self._client.get(f"{self.addresses[service]}/dead-letters?limit=1").json()["total"])

    def notes(self, service: str, order: str, note: str) -> list[dict[str, Any]]:
        """Return an order's notes of one kind in one service."""
        return [entry for entry in self.entries(service, order) if entry["to_state"] == note]

    async def _refuse(self, entries: list[Entry]) -> None:
        async with self.fleet.databases["inventory"].transaction() as session:
            await saga_log.append(await session.connection(), entries)

    async def _add(self, added: list[DeadLetter], notes: list[Entry]) -> None:
        async with self.fleet.databases["notification"].transaction() as session:
            connection = await session.connection()
            await dead_letters.add(connection, added)
            await saga_log.append(connection, notes)

    async def _drop(self, order: str) -> None:
        which = Selection(saga_id=order)
        async with self.fleet.databases["notification"].transaction() as session:
            connection = await session.connection()
            found = await dead_letters.choose(connection, which, most=100, locked=False)
            await dead_letters.take(connection, found)

    async def _kill(self, service: str) -> None:
        self._port = self.fleet.running(service)[0].port
        await self.fleet.kill(service)

    async def _revive(self, service: str) -> None:
        replica = await self.fleet.launch(service, SAGA_HTTP_PORT=str(self._port))
        replica.port = self._port
        await eventually(replica.is_ready, what=f"{service} ready", within=60)

    def _start_console(self) -> str:
        named = [word for name, url in self.addresses.items() for word in ("--service", f"{name}={url}")]
        command = (sys.executable, "-m", "toolkit.cli", "console", "--port", "0", *named)
        environment = os.environ | {"SAGA_API_TOKEN": TOKEN}
        self._console = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True)
        assert self._console.stderr
        for line in self._console.stderr:
            if found := re.search(r"http://\S+?(?=/?$)", line.strip()):
                threading.Thread(target=self._console.stderr.read, daemon=True).start()
                return found[0].rstrip("/")
        raise AssertionError("the console did not announce its address")


def _dead_letter(order: str, at: datetime, number: int) -> DeadLetter:
    event = InventoryReservationFailed(order_id=order, reason="SOLD-OUT is sold out")
    envelope = Envelope(
        event_id=derived_id("order", order, type(event).__name__),
        event_type=type(event).__name__,
        version=1,
        saga_id=order,
        saga_type="order",
        occurred_at=at,
    )
    return DeadLetter(
        id=new_id(),
        service="notification",
        reason="retries spent",
        error="ConnectionRefusedError: the mail server does not answer",
        message=envelope.carry(event),
        at=at + timedelta(milliseconds=number),
        step="send_cancellation_notice",
        attempts=1,
    )


def _refusal(dead_letter: DeadLetter) -> Entry:
    """Return the log entry of the inventory's refusal."""
    order = str(dead_letter.message.correlation_id)
    return Entry(
        service="inventory",
        saga_id=order,
        saga_type="order",
        step="reserve_inventory",
        position=1,
        from_state=None,
        to_state=StepState.FAILED,
        saga_state=SagaState.COMPENSATING,
        event_id=derived_id("order", order, "OrderCreated"),
        event_type="OrderCreated",
        emitted_id=dead_letter.message.message_id,
        emitted_type=dead_letter.message.type,
        emitted_body=dead_letter.message.body.decode(),
        error="SOLD-OUT is sold out",
        at=dead_letter.at,
    )


def _note(dead_letter: DeadLetter) -> Entry:
    return Entry(
        service=dead_letter.service,
        saga_id=str(dead_letter.message.correlation_id),
        saga_type="order",
        step=str(dead_letter.step),
        position=None,
        from_state=None,
        to_state=Note.DEAD_LETTERED,
        saga_state=SagaState.COMPENSATING,
        event_id=dead_letter.message.message_id,
        event_type=dead_letter.message.type,
        attempt=5,
        error=dead_letter.error,
        at=dead_letter.at,
    )
