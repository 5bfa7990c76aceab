"""The hotel as it is run: `saga run examples.travel.hotel.app:app`."""

from __future__ import annotations

from examples.travel.hotel.steps import hotel
from examples.travel.reservations import Reservations, open_reservations
from toolkit import Service

app = Service(name="hotel", participants=[hotel], provides={Reservations: open_reservations})
