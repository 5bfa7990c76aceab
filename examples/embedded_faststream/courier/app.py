"""The courier as it is run: `saga run examples.embedded_faststream.courier.app:app`."""

from __future__ import annotations

from examples.embedded_faststream.courier.steps import courier
from toolkit import Service

app = Service(name="courier", participants=[courier])
