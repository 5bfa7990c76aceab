"""The order saga's demonstration, `saga demo`: orders that succeed, and orders that are refused at each step.

All services run in this process on fresh files. Each order's outcome is shown and compared with the expected one, and
goods and money have to add up.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

from rich.text import Text

from services.accounts import Check, money_adds_up, stock_adds_up
from services.events import OrderCreated, order_saga
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.payment.gateway import open_gateway
from services.shipping.app import app as shipping
from toolkit.cli.output import console, print_table
from toolkit.cli.payload import apply, example_of, validated
from toolkit.cli.progress_bars import progress
from toolkit.cli.timelines import print_timeline, styled_state
from toolkit.client.database_client import DatabaseClient
from toolkit.client.saga_report import timelines_of
from toolkit.client.service_client import LogReader
from toolkit.client.starting import client_tracing, send
from toolkit.client.waiting import wait_until_ended
from toolkit.clock import SystemClock
from toolkit.configuration.settings import Settings, load_settings
from toolkit.declaration.events import SagaState
from toolkit.observability.logs import configure_logs
from toolkit.protocol.fence import Note, StepState
from toolkit.protocol.timeline import Timeline
from toolkit.transport.embedded import Embedded

SERVICES = (inventory, payment, shipping, notification)
#: The slowest order makes four attempts at its payment, which take about two seconds.
PATIENCE = timedelta(seconds=12)


@dataclass(frozen=True, slots=True)
class Outcome:
    """An order's end: its state, the services that undid it in their order, and the number of failed attempts."""

    state: SagaState | None
    undone: tuple[str, ...] = ()
    retries: int = 0

    def __str__(self) -> str:
        return f"{self.state} (undone: {', '.join(self.undone) or 'nothing'}; retries: {self.retries})"


@dataclass(frozen=True, slots=True)
class DemoOrder:
    """One order: the example of `OrderCreated` with these changes, and its expected outcome."""

    id: str
    plot: str
    expected: Outcome
    changes: tuple[str, ...] = ()
    sent: int = 1


COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED

ORDERS = (
    DemoOrder("demo-fine", "nothing goes wrong", Outcome(COMPLETED)),
    DemoOrder("demo-sold-out", "the goods are short", Outcome(FAILED), ("items.0.sku=SOLD-OUT",)),
    DemoOrder(
        "demo-declined", "the card is declined", Outcome(FAILED, ("inventory",)), ("payment_method=card_declined",)
    ),
    DemoOrder(
        "demo-antarctica",
        "no carrier goes there",
        Outcome(FAILED, ("payment", "inventory")),
        ("shipping_address.country=AQ",),
    ),
    DemoOrder(
        "demo-bounced",
        "the e-mail bounces",
        Outcome(FAILED, ("shipping", "payment", "inventory")),
        ("customer_email=nobody@bounce.example",),
    ),
    DemoOrder("demo-flaky", "the card works at last", Outcome(COMPLETED, retries=2), ("payment_method=card_flaky",)),
    DemoOrder("demo-down", "the card never works", Outcome(FAILED, ("inventory",), 3), ("payment_method=card_down",)),
    DemoOrder("demo-twice", "it is sent twice", Outcome(COMPLETED), sent=2),
)


def main() -> int:
    """Run the demonstration; return 0 if every order ended as expected and the accounts add up, else 1."""
    settings = fresh_settings()
    timelines, checks = asyncio.run(perform(settings))
    print_outcomes(timelines)
    print_longest_compensation(list(timelines.values()))
    print_checks(checks)
    is_right = all(check.holds for check in checks) and not any(faults(timelines))
    print_ending(settings, is_right=is_right)
    return 0 if is_right else 1


def fresh_settings() -> Settings:
    """Return settings with the demonstration's own data directory, after deleting an earlier run's files."""
    os.environ.pop("PAYMENT_GATEWAY_URL", None)  # a permanent ledger would hold an earlier run's orders
    directory = load_settings().data_dir / "demo"
    for path in directory.glob("*.db*"):
        path.unlink()
    settings = load_settings(data_dir=directory, broker_url="embedded", database_url=None, log_level="error")
    configure_logs(settings)
    return settings


async def perform(settings: Settings) -> tuple[dict[str, Timeline], list[Check]]:
    """Send all orders, wait for their ends, and check the accounts."""
    clients = [DatabaseClient(each.name, settings.database_for(each.name)) for each in SERVICES]
    async with Embedded(SERVICES, settings) as embedded, open_gateway(settings) as gateway:
        async with client_tracing() as tracing:
            for order in (each for each in ORDERS for _ in range(each.sent)):
                events = {order.id: created(order)}
                await send(order_saga, events, embedded, clock=SystemClock(), tracing=tracing)
        timelines = await ended(embedded, clients)
        fulfilled = [created(order) for order in ORDERS if timelines[order.id].state is COMPLETED]
        goods = await stock_adds_up(embedded.runtimes[inventory.name].database, fulfilled)
        money = await money_adds_up(gateway, fulfilled)
    for client in clients:
        await client.close()
    return timelines, [goods, money, steps_are_done_once(timelines)]


def created(order: DemoOrder) -> OrderCreated:
    """Return the event that places the order, built as by `saga trigger --set …`."""
    fields = example_of(order_saga) | {"order_id": order.id}
    for change in order.changes:
        apply(change, fields)
    return validated(OrderCreated, fields)


async def ended(embedded: Embedded, clients: Sequence[LogReader]) -> dict[str, Timeline]:
    """Return the timelines of all orders once no message is in flight; meanwhile, show how many have ended."""
    ids = [order.id for order in ORDERS]
    with progress() as bar:
        task = bar.add_task("orders ended", total=len(ids))
        await wait_until_ended(order_saga.name, ids, clients, within=PATIENCE, ended=lambda _: bar.advance(task))
    await embedded.settled(PATIENCE.total_seconds())
    sagas = [(order_saga.name, order_id) for order_id in ids]
    return {timeline.saga_id: timeline for timeline in await timelines_of(sagas, clients)}


def outcome_of(timeline: Timeline) -> Outcome:
    """Return the outcome of the order with this timeline."""
    undone = tuple(each.service for each in timeline.entries if each.to_state == StepState.COMPENSATED)
    return Outcome(timeline.state, undone, retries=sum(each.to_state == Note.RETRYING for each in timeline.entries))


def faults(timelines: Mapping[str, Timeline]) -> Iterator[str]:
    """Yield each order whose outcome is not the expected one."""
    for order in ORDERS:
        if (outcome := outcome_of(timelines[order.id])) != order.expected:
            yield f"{order.id} should have ended as {order.expected}, and ended as {outcome}"


def steps_are_done_once(timelines: Mapping[str, Timeline]) -> Check:
    """Check that no step of any order was done twice, although one order was sent twice."""
    entries = [entry for timeline in timelines.values() for entry in timeline.entries]
    done = [(each.saga_id, each.step) for each in entries if each.to_state == StepState.COMPLETED]
    return Check(
        "no step was done twice", len(done) == len(set(done)), f"{len(set(done))} steps, done {len(done)} times"
    )


def print_outcomes(timelines: Mapping[str, Timeline]) -> None:
    """Print a line for each order, and below them the unexpected outcomes."""
    rows = [_outcome_line(order, timelines[order.id]) for order in ORDERS]
    print_table(("", "order", "plot", "ended", "retries", "way"), rows)
    for fault in faults(timelines):
        console().print(Text(f"✗ WRONG: {fault}", style="bold red"))


def print_longest_compensation(timelines: Sequence[Timeline]) -> None:
    """Print the timeline with the most compensations."""
    console().print("\nThe longest compensation path, from the logs of all services:\n", style="bold")
    print_timeline(max(timelines, key=lambda timeline: len(outcome_of(timeline).undone)))


def print_checks(checks: Sequence[Check]) -> None:
    """Print each claim about the accounts, and whether it holds."""
    console().print("\nThe accounts:\n", style="bold")
    print_table(("", "claim", "found"), [[_mark(each.holds), Text(each.claim), Text(each.found)] for each in checks])


def print_ending(settings: Settings, *, is_right: bool) -> None:
    """Print whether all results are as expected, and commands to try next."""
    summary = "All is as expected." if is_right else "Not all is as expected: see the lines marked WRONG."
    console().print(f"\n{summary}\n", style="bold green" if is_right else "bold red")
    saga = "saga" if shutil.which("saga") else os.path.relpath(sys.argv[0])
    print(  # noqa: T201 -- commands to copy: never wrapped, never coloured
        f"Try next:\n"
        f"  export SAGA_DATA_DIR={settings.data_dir} SAGA_BROKER_URL=embedded\n"
        f"  {saga} ls\n"
        f"  {saga} trace demo-down\n"
        f"  {saga} log payment --saga demo-flaky\n"
        f"  {saga} trigger OrderCreated --set shipping_address.country=AQ --wait 10\n"
        f"  {saga} graph"
    )


def _outcome_line(order: DemoOrder, timeline: Timeline) -> list[Text]:
    outcome = outcome_of(timeline)
    facts = [Text(order.id), Text(order.plot), styled_state(outcome.state), Text(str(outcome.retries or "-"))]
    return [_mark(outcome == order.expected), *facts, Text(_way(timeline))]


def _way(timeline: Timeline) -> str:
    """Return the order's path through the services: `✓` done, `✗` refused, `↩` undone."""
    signs: dict[str, str] = {StepState.COMPLETED: "✓", StepState.FAILED: "✗", StepState.COMPENSATED: "↩"}
    return "  ".join(f"{signs[each.to_state]} {each.service}" for each in timeline.entries if each.to_state in signs)


def _mark(holds: bool) -> Text:
    return Text("✓ right", style="green") if holds else Text("✗ WRONG", style="bold red")
