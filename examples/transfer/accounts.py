"""Check that no money is created or lost, at any moment, and that each transfer ends whole: `saga verify`, `saga demo`.

No reader sees two databases at one moment. So each check reads them in an order in which what was seen first is still
true when the rest is read. One statement reads one bank: it sees one moment of it.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlmodel import select

from examples.transfer.clearing.clearing_house import Settlement, SettlementState, ledger_url
from examples.transfer.events import transfer_saga
from examples.transfer.receiver_bank import models as receiver_bank
from examples.transfer.sender_bank import models as sender_bank
from toolkit.client.account_checks import CheckResult, SagaStates, reading, settings_beside, url_of
from toolkit.declaration.events import SagaState


@dataclass(frozen=True, slots=True)
class Book:
    """One bank at one moment: its accounts' opening and present balances, and the amounts by transfer and account.

    An amount is negative if it left the account; that of a refunded debit is 0.
    """

    opening: Mapping[str, int]
    balances: Mapping[str, int]
    amounts: Mapping[tuple[str, str], int]

    @property
    def by_transfer(self) -> dict[str, int]:
        """The amount that each transfer moved and did not return, positive."""
        return {transfer: abs(amount) for (transfer, _), amount in self.amounts.items() if amount}

    @property
    def refunded(self) -> set[str]:
        """The transfers whose debit was refunded."""
        return {transfer for (transfer, _), amount in self.amounts.items() if not amount}

    def faults(self) -> Iterator[str]:
        """Yield each account whose balance is not what its opening balance and its transfers make."""
        due = Counter(self.opening)
        for (_, account), amount in self.amounts.items():
            due[account] += amount
        for account, balance in self.balances.items():
            if balance != due[account] or balance < 0:
                yield f"the account {account} holds {balance}, and {due[account]} is due"


async def money_is_conserved(databases: Mapping[str, str], _: SagaStates) -> CheckResult:
    """Check that balances and money in transit add up to the opening balances, at any moment."""
    # The receivers first: what is credited there was debited before, and is not refunded later.
    receivers, senders = await _receivers(databases), await _senders(databases)
    paid, credited = senders.by_transfer, receivers.by_transfer
    in_transit = sum(paid.values()) - sum(credited.values())
    held, due = (sum(one.values()) + sum(other.values()) for one, other in (
        (senders.balances, receivers.balances), (senders.opening, receivers.opening)
    ))  # fmt: skip
    faults = [
        *senders.faults(),
        *receivers.faults(),
        *(f"{transfer} is credited with {amount}, and debited with {paid.get(transfer, 0)}"
          for transfer, amount in credited.items() if amount != paid.get(transfer)),
    ]  # fmt: skip
    return CheckResult(
        "balances and money in transit are the opening balances",
        holds=held + in_transit == due and not faults,
        found="; ".join(faults) or f"{held / 100:.2f} held, {in_transit / 100:.2f} in transit, {due / 100:.2f} due",
    )


async def transfers_are_whole(databases: Mapping[str, str], states: SagaStates) -> CheckResult:
    """Check that the clearing house agrees with the banks at any moment, and each ended transfer with its end."""
    receivers, senders = await _receivers(databases), await _senders(databases)
    # The clearing house last: what is credited was settled before, what is refunded was recalled before, both for good.
    settled = await _settled(databases)
    paid, credited = senders.by_transfer, receivers.by_transfer
    faults = [f"{each} is credited, and not settled" for each in credited if credited[each] != settled.get(each)]
    faults += [f"{each} is refunded, and settled" for each in senders.refunded if each in settled]
    for (saga_type, transfer), state in states.items():
        found = [amounts.get(transfer, 0) for amounts in (paid, settled, credited)]
        is_whole = all(found) and len(set(found)) == 1 if state is SagaState.COMPLETED else not any(found)
        if saga_type == transfer_saga.name and state and not is_whole:
            faults.append(f"{transfer} ended {state}: debited, settled and credited are {found}")
    return CheckResult(
        "completed transfers are debited, settled and credited, failed ones not at all",
        holds=not faults,
        found="; ".join(faults) or f"{len(credited)} credited, {len(senders.refunded)} refunded",
    )


#: The checks that `saga verify` runs beside the toolkit's own invariants; they hold while transfers are under way, too.
CHECKS = (money_is_conserved, transfers_are_whole)


async def _senders(databases: Mapping[str, str]) -> Book:
    account, debit = sender_bank.Account, sender_bank.Debit
    async with reading(url_of("sender_bank", databases)) as session:
        rows: Sequence[tuple[Any, Any]] = (await session.exec(select(account, debit).join(debit, isouter=True))).all()
    return Book(
        _opening(sender_bank.ACCOUNTS_FILE),
        {each.number: each.balance for each, _ in rows},
        {(each.transfer_id, each.account): 0 if each.is_refunded else -each.amount for _, each in rows if each},
    )


async def _receivers(databases: Mapping[str, str]) -> Book:
    account, credit = receiver_bank.Account, receiver_bank.Credit
    async with reading(url_of("receiver_bank", databases)) as session:
        rows: Sequence[tuple[Any, Any]] = (await session.exec(select(account, credit).join(credit, isouter=True))).all()
    return Book(
        _opening(receiver_bank.ACCOUNTS_FILE),
        {each.number: each.balance for each, _ in rows},
        {(each.transfer_id, each.account): each.amount for _, each in rows if each},
    )


async def _settled(databases: Mapping[str, str]) -> dict[str, int]:
    """Return the amounts that are settled and not recalled, by transfer."""
    url = ledger_url(settings_beside(url_of("sender_bank", databases)))
    settled = select(Settlement).where(Settlement.state == SettlementState.SETTLED)
    async with reading(url, variable="CLEARING_HOUSE_URL") as session:
        # A key is saga type, id and step; the id may have colons.
        return {each.key.partition(":")[2].rpartition(":")[0]: each.amount for each in await session.exec(settled)}


def _opening(file: Path) -> dict[str, int]:
    return {each["number"]: each["balance"] for each in json.loads(file.read_text())}
