"""The trip's demonstration, `saga demo travel`: trips that succeed, and trips that fail in each branch."""

from __future__ import annotations

from examples.travel.accounts import CHECKS
from examples.travel.agency.app import app as agency
from examples.travel.airline.app import app as airline
from examples.travel.car_rental.app import app as car_rental
from examples.travel.events import trip_saga
from examples.travel.hotel.app import app as hotel
from toolkit.cli.demonstration import Demo, End, Scenario, run
from toolkit.declaration.events import SagaState

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED

TRIPS = (
    Scenario("demo-fine", "nothing goes wrong", End(COMPLETED)),
    Scenario("demo-no-room", "the hotel is full", End(FAILED, ("airline", "car_rental")), ("hotel=FULL",)),
    Scenario("demo-no-seat", "the flight is full", End(FAILED, ("car_rental", "hotel")), ("flight=FULL",)),
    Scenario("demo-no-car", "no car is left", End(FAILED, ("airline", "hotel")), ("car=FULL",)),
    Scenario("demo-two-full", "two branches refuse", End(FAILED, ("airline",)), ("hotel=FULL", "car=FULL")),
    Scenario("demo-broke", "no money", End(FAILED, ("airline", "car_rental", "hotel")), ("traveller=BROKE",)),
    Scenario("demo-down", "the airline is down", End(FAILED, ("car_rental", "hotel"), 3), ("flight=DOWN",)),
    Scenario("demo-twice", "it is sent twice", End(COMPLETED), sent=2),
)

DEMO = Demo(
    package="examples.travel",
    directory="demo-travel",
    saga=trip_saga,
    services=(hotel, airline, car_rental, agency),
    scenarios=TRIPS,
    has_branches=True,
    ledgers=("RESERVATIONS_URL",),
    always=CHECKS,
    try_next=(
        "ls",
        "trace demo-broke",
        "log agency --saga demo-fine",
        "trigger TripRequested --set flight=FULL --wait 10",
        "verify",
        "graph",
    ),
)


def main() -> int:
    """Run the demonstration; return 0 if every trip ended as expected and the accounts add up, else 1."""
    return run(DEMO)
