"""Finance as it is run: `saga run examples.approval.finance.app:app`."""

from __future__ import annotations

from examples.approval.finance.models import metadata, seed_departments
from examples.approval.finance.steps import finance
from toolkit import Service

app = Service(name="finance", participants=[finance], tables=metadata, seed=seed_departments)
