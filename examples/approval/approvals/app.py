"""The approvals desk as it is run: `saga run examples.approval.approvals.app:app`."""

from __future__ import annotations

from examples.approval.approvals.models import metadata
from examples.approval.approvals.steps import approvals
from toolkit import Service

app = Service(name="approvals", participants=[approvals], tables=metadata)
