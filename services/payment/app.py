"""The payment service as it is run: `saga run services.payment.app:app`."""

from __future__ import annotations

from services.payment.gateway import Gateway, open_gateway
from services.payment.models import metadata
from services.payment.steps import payment
from toolkit import Service

app = Service(name="payment", participants=[payment], tables=metadata, provides={Gateway: open_gateway})
