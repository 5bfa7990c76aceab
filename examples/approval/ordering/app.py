"""Ordering as it is run: `saga run examples.approval.ordering.app:app`."""

from __future__ import annotations

from examples.approval.ordering.models import metadata
from examples.approval.ordering.steps import ordering
from toolkit import Service

app = Service(name="ordering", participants=[ordering], tables=metadata)
