"""The car rental as it is run: `saga run examples.travel.car_rental.app:app`."""

from __future__ import annotations

from examples.travel.car_rental.steps import car_rental
from examples.travel.reservations import Reservations, open_reservations
from toolkit import Service

app = Service(name="car_rental", participants=[car_rental], provides={Reservations: open_reservations})
