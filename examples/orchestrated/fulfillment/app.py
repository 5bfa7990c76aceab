"""The fulfillment service as it is run: `saga run examples.orchestrated.fulfillment.app:app`."""

from __future__ import annotations

from examples.orchestrated.fulfillment.coordinator import OrderFulfillment
from toolkit import Service

app = Service(name="fulfillment", orchestrators=[OrderFulfillment])
