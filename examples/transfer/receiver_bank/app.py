"""The receiver's bank as it is run: `saga run examples.transfer.receiver_bank.app:app`."""

from __future__ import annotations

from examples.transfer.receiver_bank.models import metadata, seed_accounts
from examples.transfer.receiver_bank.steps import receiver_bank
from toolkit import Service

app = Service(name="receiver_bank", participants=[receiver_bank], tables=metadata, seed=seed_accounts)
