"""Billing as it is run: `saga run examples.embedded_fastapi.billing.app:app`."""

from __future__ import annotations

from examples.embedded_fastapi.billing.steps import billing
from toolkit import Service

app = Service(name="billing", participants=[billing])
