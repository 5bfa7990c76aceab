"""The order saga, refused at every step and aborted at every moment: all of it is done, or undone in strict reverse.

The shop's own services run in the simulation, where a moment is the time between two deliveries. Their actions and
the order of these are read from their logs: each entry's event was emitted by the entry before it in the timeline.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from services.events import OrderCreated, order_saga
from services.inventory.app import app as inventory
from services.notification.app import app as notification
from services.payment.app import app as payment
from services.shipping.app import app as shipping
from toolkit import Event, Settings
from toolkit.declaration.events import AbortRequested, documented_example
from toolkit.ids import derived_id
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.testing.simulation.simulation import Simulation, simulation

SERVICES = [inventory, payment, shipping, notification]
STEPS = ["reserve_inventory", "process_payment", "create_shipment", "send_confirmation"]
PRICE = 3950 + 4 * 1200
EXAMPLE = documented_example(OrderCreated)
#: The cause of each step's refusal; two other cards let the external call fail, and take long.
REFUSALS: dict[str, tuple[str | None, dict[str, Any]]] = {
    "no step refuses": (None, {}),
    "the goods are sold out": ("reserve_inventory", {"items": [{"sku": "SOLD-OUT", "quantity": 1}]}),
    "the card is declined": ("process_payment", {"payment_method": "card_declined"}),
    "the provider is down": ("process_payment", {"payment_method": "card_down"}),
    "the provider is slow": ("process_payment", {"payment_method": "card_slow"}),
    "no carrier ships there": (
        "create_shipment",
        {"shipping_address": EXAMPLE["shipping_address"] | {"country": "AQ"}},
    ),
    "the customer has no mailbox": ("send_confirmation", {"customer_email": "ada@bounce.example"}),
}
#: The order in which an abort reaches the services.
ARRIVALS: dict[str, Callable[[list], list]] = {"forwards": list, "backwards": lambda parcels: parcels[::-1]}
#: More moments than any order has; beyond it something goes in circles.
MOST_MOMENTS = 100


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_compensates_in_strict_reverse_order(case: str, files: Path, tmp_path: Path) -> None:
    refusing, changes = REFUSALS[case]

    with shop(files, tmp_path) as world:
        run(world, changes)

        done = STEPS[: STEPS.index(refusing)] if refusing else STEPS
        assert completed(world) == done
        assert undone(world) == (done[::-1] if refusing else [])
        assert_one_end(world, tmp_path, well=refusing is None)


@pytest.mark.parametrize("arrival", ARRIVALS)
@pytest.mark.parametrize("case", REFUSALS)
def test_an_abort_at_any_moment_is_atomic(case: str, arrival: str, files: Path, tmp_path: Path) -> None:
    refusing, changes = REFUSALS[case]
    ends = []

    for moment in count():
        folder = tmp_path / str(moment)
        with shop(files, folder) as world:
            is_reached = run(world, changes, abort_at=moment, arrival=ARRIVALS[arrival])
            is_well = "send_confirmation" in completed(world)
            assert undone(world) == ([] if is_well else completed(world)[::-1]), f"aborted at moment {moment}"
            assert_one_end(world, folder, well=is_well)
        ends.append(is_well)
        if not is_reached:
            break

    # The first abort comes before the order, the last one after its end.
    assert ends[0] is False
    assert ends[-1] is (refusing is None)


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("service", [service.name for service in SERVICES])
@pytest.mark.parametrize("case", ["no step refuses", "no carrier ships there"])
def test_a_wrong_clock_leaves_all_or_nothing(case: str, service: str, hours: int, files: Path, tmp_path: Path) -> None:
    refusing, changes = REFUSALS[case]

    with shop(files, tmp_path, **{service: timedelta(hours=hours)}) as world:
        run(world, changes)

        # A step refuses an event that is an hour old, which is a legal end; it accepts one of the future.
        is_well = "send_confirmation" in completed(world)
        assert not (is_well and refusing)
        assert undone(world) == ([] if is_well else completed(world)[::-1])
        assert_one_end(world, tmp_path, well=is_well)


@contextmanager
def shop(files: Path, folder: Path, **clocks_off: timedelta) -> Iterator[Simulation]:
    """Run the shop in this folder, with a copy of its initial files."""
    with simulation(SERVICES, settings_in(folder), template=files, clocks_off=clocks_off) as world:
        yield world


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The services' files before the first order."""
    folder = tmp_path_factory.mktemp("shop")
    with simulation(SERVICES, settings_in(folder)):
        return folder


def settings_in(folder: Path) -> Settings:
    return Settings(data_dir=folder, relay_poll=timedelta(minutes=1), watch_every=timedelta(minutes=1))


def run(
    world: Simulation, changes: dict[str, Any], *, abort_at: int | None = None, arrival: Callable[[list], list] = list
) -> bool:
    """Send an order and deliver all messages; return whether the abort's moment came before the end."""
    placed = world.wire.hold(message(world, OrderCreated.model_validate(EXAMPLE | changes | {"order_id": "order-1"})))
    assert len(placed) == 1
    for moment in range(MOST_MOMENTS):
        if moment == abort_at:
            abort(world, arrival)
        if world.wire.waiting:
            world.deliver(world.wire.waiting[0])
        elif not world.is_quiet():
            world.advance(timedelta(seconds=5))
        else:
            return abort_at is not None and moment >= abort_at
    raise AssertionError("the order goes in circles")


def abort(world: Simulation, arrival: Callable[[list], list]) -> None:
    reason = "the customer has changed her mind"
    parcels = world.wire.hold(message(world, AbortRequested(saga_type="order", saga_id="order-1", reason=reason)))
    for parcel in arrival(parcels):
        world.deliver(parcel)


def message(world: Simulation, event: Event) -> WireMessage:
    kind = type(event).__name__
    envelope = Envelope(
        event_id=derived_id("order", "order-1", kind),
        event_type=kind,
        version=1,
        saga_id="order-1",
        saga_type=order_saga.name,
        occurred_at=world.clock.now(),
    )
    return envelope.carry(event)


def moves(world: Simulation) -> list[sqlite3.Row]:
    """Return the entries of all services that moved a step."""
    query = "SELECT * FROM saga_log WHERE position IS NOT NULL ORDER BY id"
    return [entry for name in world.files for entry in world.rows(name, query)]


def completed(world: Simulation) -> list[str]:
    """Return the steps that were done, in the saga's order."""
    done = {entry["step"] for entry in moves(world) if entry["to_state"] == "completed"}
    return [step for step in STEPS if step in done]


def undone(world: Simulation) -> list[str]:
    """Return the steps that were undone, in the order in which each was the cause of the next."""
    return [entry["step"] for entry in timeline(world) if entry["to_state"] == "compensated"]


def timeline(world: Simulation) -> list[sqlite3.Row]:
    """Return the entries that led to the end, from the first cause to the last entry."""
    entries = moves(world)
    emitted = {entry["emitted_id"]: entry for entry in entries if entry["emitted_id"]}
    (entry,) = [entry for entry in entries if entry["emitted_type"] in ("OrderFulfilled", "OrderFailed")]
    found = [entry]
    while entry := emitted.get(entry["event_id"]):
        found.append(entry)
    return found[::-1]


def assert_one_end(world: Simulation, folder: Path, *, well: bool) -> None:
    """All is done and confirmed, or nothing is left: no entry, no goods, no money, and one letter to the customer."""
    states = {entry["step"]: entry["to_state"] for entry in moves(world)}
    end = "send_confirmation" if well else "send_cancellation_notice"
    if well:
        assert states == dict.fromkeys(STEPS, "confirmed")
    else:
        assert states.pop(end) == "completed"
        assert set(states.values()) <= {"compensated", "failed", "fenced"}
    assert [row["kind"] for row in world.rows("notification", "SELECT kind FROM message")] == [
        "confirmation" if well else "cancellation"
    ]
    (reserved,) = world.rows("inventory", "SELECT sum(reserved) FROM stock")[0]
    assert reserved == (5 if well else 0)
    assert money_kept(folder) == (PRICE if well else 0)
    assert not any(world.rows(name, "SELECT 1 FROM saga_dead_letters") for name in world.files)


def money_kept(folder: Path) -> int:
    with sqlite3.connect(folder / "gateway.db") as ledger:
        return ledger.execute("SELECT coalesce(sum(taken - returned), 0) FROM charge").fetchone()[0]
