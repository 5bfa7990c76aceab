"""The airline as it is run: `saga run examples.travel.airline.app:app`."""

from __future__ import annotations

from examples.travel.airline.steps import airline
from examples.travel.reservations import Reservations, open_reservations
from toolkit import Service

app = Service(name="airline", participants=[airline], provides={Reservations: open_reservations})
