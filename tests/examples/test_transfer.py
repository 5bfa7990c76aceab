"""The transfer over RabbitMQ, with many transfers at once; and its checks, which detect money that is lost or made."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from examples.transfer.accounts import CHECKS, money_is_conserved, transfers_are_whole
from examples.transfer.events import TransferRequested, transfer_saga
from tests.examples.damaged import checked_after
from tests.examples.demos import DEMOS
from tests.examples.running import Running
from toolkit import Settings
from toolkit.cli.demonstration import Demo
from toolkit.client.account_checks import AccountCheck
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.declaration.events import SagaState
from toolkit.errors import UnreachableError
from toolkit.transport.embedded import Embedded

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED
SERVICES = DEMOS["transfer"].services
#: How each transfer ends in itself, by its sender and receiver; of those from THRIFTY, one has enough money.
MANY = [("ADA", "GRACE"), ("ADA", "CLOSED"), ("EMPTY", "GRACE"), ("THRIFTY", "GRACE")]


@pytest.fixture
def demo() -> Demo:
    return DEMOS["transfer"]


def transfer(transfer_id: str, sender: str = "ADA", receiver: str = "GRACE", scheme: str = "instant"):
    return TransferRequested(
        transfer_id=transfer_id, sender=sender, receiver=receiver, amount=6000, scheme=scheme
    )  # THRIFTY holds 10000


async def test_concurrent_transfers_overdraw_no_account(running: Running):
    transfers = [
        transfer(f"{sender}-{receiver}-{number}", sender, receiver) for number in range(5) for sender, receiver in MANY
    ]

    async with running.checked() as checks:
        await asyncio.gather(*(running.send(each.transfer_id, each) for each in (*transfers, *transfers)))
        timelines = await running.ended(*(each.transfer_id for each in transfers))

    states = Counter((saga_id.rpartition("-")[0], str(each.state)) for saga_id, each in timelines.items())
    assert states == {
        ("ADA-GRACE", COMPLETED): 5,
        ("ADA-CLOSED", FAILED): 5,
        ("EMPTY-GRACE", FAILED): 5,
        ("THRIFTY-GRACE", COMPLETED): 1,
        ("THRIFTY-GRACE", FAILED): 4,
    }
    assert await running.violations() == []
    assert checks.runs > 0
    assert [each for each in await checks.results({}) if not each.holds] == []


@pytest.fixture
async def databases(tmp_path: Path) -> dict[str, str]:
    """The databases after one completed transfer, whose id has a colon, and one failed one."""
    settings = Settings(data_dir=tmp_path)
    events = {"paid:ada": transfer("paid:ada"), "returned": transfer("returned", receiver="CLOSED")}
    async with Embedded(SERVICES, settings) as embedded:
        await send(transfer_saga, events, embedded, clock=SystemClock())
        assert await embedded.settled(60)
    return {each.name: settings.database_for(each.name) for each in SERVICES} | {
        "house": f"sqlite:///{tmp_path}/clearing-house.db"
    }


STATES = {("transfer", "paid:ada"): COMPLETED, ("transfer", "returned"): FAILED}


async def test_checks_hold_and_show_their_figures(databases):
    results = [await check(databases, STATES) for check in CHECKS]

    assert [each.holds for each in results] == [True, True]
    assert [each.found for each in results] == [
        "1000600.00 held, 0.00 in transit, 1000600.00 due",
        "1 credited, 1 refunded",
    ]


@pytest.mark.parametrize(
    ("check", "service", "fault", "found"),
    [
        (
            money_is_conserved,
            "receiver_bank",
            "UPDATE account SET balance = balance + 1 WHERE number = 'GRACE'",
            "the account GRACE holds 56001, and 56000 is due",
        ),
        (
            money_is_conserved,
            "sender_bank",
            "UPDATE debit SET is_refunded = NOT is_refunded WHERE transfer_id = 'paid:ada'",
            "the account ADA holds 99994000, and 100000000 is due; paid:ada is credited with 6000, and debited with 0",
        ),
        (money_is_conserved, "sender_bank", "DELETE FROM debit WHERE transfer_id = 'paid:ada'", "debited with 0"),
        (transfers_are_whole, "receiver_bank", "DELETE FROM credit", "are [6000, 6000, 0]"),
        (transfers_are_whole, "house", "UPDATE settlement SET amount = 5999", "paid:ada is credited, and not settled"),
        (
            transfers_are_whole,
            "house",
            "UPDATE settlement SET state = 'settled', amount = 6000",
            "returned is refunded, and settled; returned ended Failed",
        ),
    ],
)
async def test_checks_detect_money_lost_or_made(
    databases: dict[str, str], check: AccountCheck, service: str, fault: str, found: str
):
    result = await checked_after(fault, check, databases, service, STATES)

    assert not result.holds
    assert found in result.found


async def test_missing_ledger_of_the_house_is_reported(databases, tmp_path):
    (tmp_path / "clearing-house.db").unlink()

    with pytest.raises(UnreachableError, match="name the database in CLEARING_HOUSE_URL"):
        await transfers_are_whole(databases, {})


async def test_api_in_place_of_a_database_is_reported(databases):
    del databases["receiver_bank"]

    with pytest.raises(UnreachableError, match="name receiver_bank by its database"):
        await money_is_conserved(databases, {})
