"""The inventory service as it is run: `saga run services.inventory.app:app`."""

from __future__ import annotations

from services.inventory.models import metadata, seed_stock
from services.inventory.steps import inventory
from toolkit import Service

app = Service(name="inventory", participants=[inventory], tables=metadata, seed=seed_stock)
