"""The depot's service, which the application in `stream.py` runs."""

from __future__ import annotations

from examples.embedded_faststream.depot.models import metadata
from examples.embedded_faststream.depot.steps import depot
from examples.embedded_faststream.events import delivery_saga
from toolkit import Service

app = Service(name="depot", participants=[depot], starts=[delivery_saga], tables=metadata)
