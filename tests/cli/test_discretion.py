"""What an order says of its customer is shown by no verb, in no format, however the order fared, and in no log line."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.demo import SERVICES
from services.events import order_saga
from tests.cli.conftest import PROJECT, TOKEN, service_options
from toolkit import Settings
from toolkit.cli.payload import apply, example_of, validated
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.messaging.envelope import WireMessage
from toolkit.observability.logs import configure_logs
from toolkit.persistence import dead_letters, outbox
from toolkit.persistence.dead_letters import DeadLetter
from toolkit.persistence.outbox import OutboxRow
from toolkit.transport.embedded import Embedded

#: Stands in each field that is the customer's alone.
MARK = "quagga"
PRIVATE = (
    f"customer_email={MARK}@shop.example",
    f"shipping_address.name={MARK.title()} Smith",
    f"shipping_address.street=7 {MARK.title()} Street",
    f"shipping_address.postal_code={MARK}-1",
)
ORDERS = {
    "order-fine": (),
    "order-declined": (f"payment_method=card_{MARK}",),
    "order-antarctica": ("shipping_address.country=AQ",),
    "order-bounced": (f"customer_email={MARK}@bounce.example",),
}
NOW = datetime.now(UTC)

VERBS = [
    ("ls",),
    *((("trace", saga_id)) for saga_id in ORDERS),
    ("log", "inventory"),
    ("log", "notification"),
    ("stats",),
    ("watch",),
    ("attention",),
    ("attention", "--only", "outbox"),
    ("nudge", "order-fine", "--reason", "a look"),
    ("replay", "order-fine", "--reason", "a look"),
    ("verify",),
    ("dead-letters", "ls", "payment"),
    *(("dead-letters", "show", "payment", dead_letter) for dead_letter in ("known", "misspelt", "unknown", "broken")),
    ("dead-letters", "redrive", "payment", "--all", "--dry-run"),
]

#: The verbs that show something of events, or of what went wrong with them.
SHOWING = ("trace", "dead-letters")


#: Deals in a process of its own, so that its log lines are all that it says.
DEAL = "import sys; from tests.cli.test_discretion import begin; begin(sys.argv[1])"


def begin(directory: str) -> None:
    """Have all orders handled, and say what is to be said of it."""
    settings = Settings(data_dir=Path(directory), broker_url="embedded", log_level="debug")
    configure_logs(settings)
    asyncio.run(deal(settings))


@pytest.fixture(scope="module")
def dealt(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The services' databases after these orders, with what was left behind in payment; and all log lines."""
    directory = tmp_path_factory.mktemp("dealt")
    done = subprocess.run(
        [sys.executable, "-c", DEAL, str(directory)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return directory, done.stdout + done.stderr


@pytest.fixture
def shop(data_dir: Path, dealt: tuple[Path, str]) -> dict[str, str]:
    """A copy of these databases, where the command finds them; their URLs by name."""
    shutil.copytree(dealt[0], data_dir)
    settings = Settings(data_dir=data_dir, broker_url="embedded")
    return {service.name: settings.database_for(service.name) for service in SERVICES}


def test_no_log_line_has_the_customers_data(dealt):
    _, lines = dealt

    assert "saga moved" in lines
    assert MARK not in lines.lower()


async def deal(settings: Settings) -> None:
    """Have all orders handled; then leave behind in payment what could not be."""
    async with Embedded(SERVICES, settings) as embedded:
        for order_id, changes in ORDERS.items():
            fields = example_of(order_saga) | {"order_id": order_id}
            for change in (*PRIVATE, *changes):
                apply(change, fields)
            order = validated(order_saga.starts_with, fields)
            await send(order_saga, {order_id: order}, embedded, clock=SystemClock())
        assert await embedded.settled(30)
        async with embedded.runtimes["payment"].database.transaction() as session:
            connection = await session.connection()
            await dead_letters.add(connection, all_dead_letters())
            row = OutboxRow(id="row", message=wire(), due_at=NOW - timedelta(days=1), destination="saga.payment")
            await outbox.add(connection, [row])


def wire(**changes: object) -> WireMessage:
    """Return an event that holds the customer's facts."""
    body = {
        "order_id": "order-left", "reservation_id": "r-1", "total_amount": 1, "payment_method": MARK,
        "shipping_address": {"name": MARK, "street": MARK, "city": "London", "postal_code": MARK, "country": "GB"},
        "customer_email": f"{MARK}@shop.example",
    }  # fmt: skip
    plain = WireMessage(
        json.dumps(body).encode(), "inventory.InventoryReserved", message_id="message-1", correlation_id="order-left",
        type="InventoryReserved", timestamp=NOW, headers={"saga-type": "order", "event-version": 1},
    )  # fmt: skip
    return replace(plain, **changes)


def all_dead_letters() -> list[DeadLetter]:
    """Return one dead letter that can be read, and three that can't, each in its own way."""
    facts = {"service": "payment", "at": NOW}
    return [
        DeadLetter(
            id="known", reason="retries spent", error=f"no charge to {MARK}", message=wire(), step="process_payment",
            traceback=f"Traceback: card {MARK} was declined", **facts,
        ),
        DeadLetter(
            id="misspelt", reason="schema", error="customer_email: Field required",
            message=wire(body=f'{{"mail": "{MARK}"}}'.encode(), message_id="message-2"), **facts,
        ),
        DeadLetter(
            id="unknown", reason="unknown type", error="'OrderGilded' is not an event that this service consumes",
            message=wire(type="OrderGilded", message_id="message-3"), **facts,
        ),
        DeadLetter(
            id="broken", reason="not JSON", error="expected value at line 1 column 1",
            message=wire(body=MARK.encode(), message_id="message-4"), **facts,
        ),
    ]  # fmt: skip


@pytest.mark.parametrize("output", ["table", "json"])
def test_no_verb_shows_what_is_the_customers_alone(saga, shop, output):
    for verb in VERBS:
        result = saga(*verb, "-o", output)

        assert result.exit_code in (0, 1), (verb, result.output)
        assert MARK not in result.output.lower(), verb


def test_nor_does_a_running_service(saga, shop, serve, monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN", TOKEN)
    running = service_options({name: serve(name, url) for name, url in shop.items()})

    for verb in (each for each in VERBS if each[0] in SHOWING):
        result = saga(*verb, *running)

        assert result.exit_code in (0, 1), (verb, result.output)
        assert MARK not in result.output.lower(), verb


def test_plain_fields_of_a_dead_letter_are_shown(saga, shop):
    dead_letter = json.loads(saga("dead-letters", "show", "payment", "known", "-o", "json").stdout)

    body = json.loads(dead_letter["body"])
    assert (body["order_id"], body["total_amount"], body["payment_method"]) == ("order-left", 1, "***")
    assert body["shipping_address"]["city"] == "London"
    assert dead_letter["error"] == "no charge to ***"


@pytest.mark.parametrize(("dead_letter", "why"), [("unknown", "unknown event"), ("broken", "it is not a JSON object")])
def test_hidden_message_names_the_reason_and_the_table(saga, shop, dead_letter, why):
    result = saga("dead-letters", "show", "payment", dead_letter)

    assert result.exit_code == 0
    assert f"body: (not shown: {why})" in result.stdout
    assert result.stderr == (
        f"the message of {dead_letter} is not shown, since its event's declaration is not known here; "
        "it is whole in the table saga_dead_letters of payment's database\n"
    )


def test_without_declarations_no_message_is_shown(saga, shop, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SAGA_PACKAGE", "no_such_package")

    for verb in (each for each in VERBS if each[0] in SHOWING):
        assert MARK not in saga(*verb).output.lower(), verb
    assert "(not shown: unknown event)" in saga("dead-letters", "show", "payment", "known").output
