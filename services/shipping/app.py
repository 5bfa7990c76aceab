"""The shipping service as it is run: `saga run services.shipping.app:app`."""

from __future__ import annotations

from services.shipping.models import metadata
from services.shipping.steps import shipping
from toolkit import Service

app = Service(name="shipping", participants=[shipping], tables=metadata)
