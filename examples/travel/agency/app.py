"""The agency as it is run: `saga run examples.travel.agency.app:app`."""

from __future__ import annotations

from examples.travel.agency.models import metadata, seed_accounts
from examples.travel.agency.steps import agency
from toolkit import Service

app = Service(name="agency", participants=[agency], tables=metadata, seed=seed_accounts)
