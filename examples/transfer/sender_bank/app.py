"""The sender's bank as it is run: `saga run examples.transfer.sender_bank.app:app`."""

from __future__ import annotations

from examples.transfer.sender_bank.models import metadata, seed_accounts
from examples.transfer.sender_bank.steps import sender_bank
from toolkit import Service

app = Service(name="sender_bank", participants=[sender_bank], tables=metadata, seed=seed_accounts)
