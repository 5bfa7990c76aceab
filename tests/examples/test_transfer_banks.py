"""The steps of both banks on their own, on SQLite and PostgreSQL."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlmodel import select
from sqlmodel.ext.asyncio.session import AsyncSession

from examples.transfer.events import (
    ClearingRefused,
    CreditRefused,
    DebitRefused,
    SenderDebited,
    SenderRefunded,
    TransferCleared,
    TransferCompleted,
    TransferRequested,
)
from examples.transfer.receiver_bank import models as receiver
from examples.transfer.receiver_bank.steps import credit_receiver
from examples.transfer.sender_bank import models as sender
from examples.transfer.sender_bank.steps import debit_sender, refund_sender

SENDER, RECEIVER = (
    pytest.mark.parametrize("tables", [bank.metadata], ids=[name])
    for name, bank in {"sender": sender, "receiver": receiver}.items()
)


def requested(amount: int, *, account: str = "THRIFTY", transfer_id: str = "transfer-1") -> TransferRequested:
    return TransferRequested(transfer_id=transfer_id, sender=account, receiver="GRACE", amount=amount, scheme="instant")


def cleared(account: str) -> TransferCleared:
    return TransferCleared(transfer_id="transfer-1", receiver=account, amount=6000)


async def balance(session: AsyncSession, bank, number: str) -> int:
    return (await session.get_one(bank.Account, number, populate_existing=True)).balance


@SENDER
async def test_a_debit_takes_the_amount_from_the_account(session):
    await sender.seed_accounts(session)

    result = await debit_sender(requested(6000), session)
    await session.commit()

    assert result == SenderDebited(transfer_id="transfer-1", receiver="GRACE", amount=6000, scheme="instant")
    assert await balance(session, sender, "THRIFTY") == 4000


@SENDER
@pytest.mark.parametrize(
    ("amount", "account", "reason"),
    [
        (10001, "THRIFTY", "the account holds less than the amount"),
        (1, "EMPTY", "the account holds less than the amount"),
        (1, "NO-SUCH", "the sender has no account here"),
    ],
)
async def test_an_account_that_lacks_the_amount_is_refused(session, amount, account, reason):
    await sender.seed_accounts(session)

    result = await debit_sender(requested(amount, account=account), session)

    assert result == DebitRefused(transfer_id="transfer-1", reason=reason)
    assert (await session.exec(select(sender.Debit))).all() == []


@SENDER
async def test_a_refund_returns_the_debited_amount(session):
    await sender.seed_accounts(session)
    await debit_sender(requested(6000), session)
    await session.commit()

    result = await refund_sender(ClearingRefused(transfer_id="transfer-1", reason="no scheme"), session)
    await session.commit()

    assert result == SenderRefunded(transfer_id="transfer-1", reason="no scheme")
    assert await balance(session, sender, "THRIFTY") == 10000


@SENDER
async def test_of_concurrent_debits_only_covered_ones_succeed(engine: AsyncEngine, session: AsyncSession):
    await sender.seed_accounts(session)
    await session.commit()

    async def debit(number: int) -> object:
        async with AsyncSession(engine) as own:
            result = await debit_sender(requested(3000, transfer_id=f"transfer-{number}"), own)
            await own.commit()
            return type(result)

    results = await asyncio.gather(*(debit(number) for number in range(8)))

    assert (results.count(SenderDebited), results.count(DebitRefused)) == (3, 5)
    assert await balance(session, sender, "THRIFTY") == 1000


@SENDER
async def test_the_database_refuses_a_negative_balance(session):
    session.add(sender.Account(number="OVERDRAWN", balance=-1))

    with pytest.raises(IntegrityError):
        await session.commit()


@SENDER
async def test_seeding_again_keeps_the_balances(session):
    await sender.seed_accounts(session)
    await debit_sender(requested(6000), session)

    await sender.seed_accounts(session)

    assert await balance(session, sender, "THRIFTY") == 4000


@RECEIVER
async def test_a_credit_adds_the_amount_to_the_account(session):
    await receiver.seed_accounts(session)

    result = await credit_receiver(cleared("GRACE"), session)
    await session.commit()

    assert result == TransferCompleted(transfer_id="transfer-1")
    assert await balance(session, receiver, "GRACE") == 56000


@RECEIVER
@pytest.mark.parametrize(
    ("account", "reason"),
    [
        ("CLOSED", "the receiver's account takes no money"),
        ("NO-SUCH", "the receiver has no account here"),
    ],
)
async def test_an_account_that_takes_no_money_is_refused(session, account, reason):
    await receiver.seed_accounts(session)

    result = await credit_receiver(cleared(account), session)

    assert result == CreditRefused(transfer_id="transfer-1", reason=reason)
    assert (await session.exec(select(receiver.Credit))).all() == []
