"""The clearing service as it is run: `saga run examples.transfer.clearing.app:app`."""

from __future__ import annotations

from examples.transfer.clearing.clearing_house import ClearingHouse, open_clearing_house
from examples.transfer.clearing.steps import clearing
from toolkit import Service

app = Service(name="clearing", participants=[clearing], provides={ClearingHouse: open_clearing_house})
