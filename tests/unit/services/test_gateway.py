import asyncio
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.payment.gateway import Charged, Declined, Gateway, GatewayUnavailableError, open_gateway
from services.payment.ledger import Charge, ChargeState, RefundRefusedError
from toolkit import Settings

KEY = "order-1:process_payment"


@pytest.fixture
def settings(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("PAYMENT_GATEWAY_URL", database_url)
    monkeypatch.setenv("PAYMENT_GATEWAY_SLOWNESS", "3600")
    return Settings(data_dir=tmp_path)


@pytest.fixture
async def gateway(settings: Settings):
    async with open_gateway(settings) as gateway:
        yield gateway


async def only_charge(gateway: Gateway) -> Charge:
    [charge] = await gateway.ledger()
    return charge


async def test_a_repeated_charge_takes_the_money_once(gateway):
    first = await gateway.charge(KEY, 1200, payment_method="card_ok")

    second = await gateway.charge(KEY, 1200, payment_method="card_ok")

    assert first == second == Charged(1200)
    assert await gateway.kept() == 1200


async def test_ten_concurrent_charges_take_the_money_once(gateway):
    calls = [gateway.charge(KEY, 1200, payment_method="card_ok") for _ in range(10)]

    answers = await asyncio.gather(*calls)

    assert set(answers) == {Charged(1200)}
    assert await gateway.kept() == 1200


@pytest.mark.parametrize(
    ("payment_method", "reason"),
    [("card_declined", "the card was declined"), ("cowrie shells", "unknown payment method 'cowrie shells'")],
)
async def test_a_declined_charge_has_a_reason(gateway, payment_method, reason):
    answer = await gateway.charge(KEY, 1200, payment_method=payment_method)

    assert answer == Declined(reason)
    assert await gateway.kept() == 0


async def test_a_flaky_card_fails_twice_and_then_works(gateway):
    for _ in range(2):
        with pytest.raises(GatewayUnavailableError):
            await gateway.charge(KEY, 1200, payment_method="card_flaky")

    answer = await gateway.charge(KEY, 1200, payment_method="card_flaky")

    assert answer == Charged(1200)
    assert (await only_charge(gateway)).attempts == 3


async def test_a_slow_card_is_charged_before_answering(gateway):
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.5):
            await gateway.charge(KEY, 1200, payment_method="card_slow")

    assert await gateway.kept() == 1200


async def test_a_charge_outlives_a_caller_that_hangs_up(settings):
    async with open_gateway(settings) as gateway:
        call = asyncio.create_task(gateway.charge(KEY, 1200, payment_method="card_ok"))
        await asyncio.sleep(0)  # the call starts, and does not complete
        call.cancel()

    async with open_gateway(settings) as gateway:
        assert call.cancelled()
        assert await gateway.kept() == 1200


async def test_a_void_works_while_charges_fail(gateway):
    with pytest.raises(GatewayUnavailableError):
        await gateway.charge(KEY, 1200, payment_method="card_down")

    await gateway.void(KEY)

    assert await gateway.charge(KEY, 1200, payment_method="card_down") == Declined("the charge was voided")


async def test_a_void_gives_back_what_was_charged(gateway):
    await gateway.charge(KEY, 1200, payment_method="card_ok")

    await gateway.void(KEY)
    await gateway.void(KEY)

    assert await only_charge(gateway) == Charge(
        key=KEY, state=ChargeState.VOIDED, taken=1200, returned=1200, reason="the charge was voided", attempts=1
    )


async def test_a_charge_after_its_void_is_declined(gateway):
    await gateway.void(KEY)

    answer = await gateway.charge(KEY, 1200, payment_method="card_ok")

    assert answer == Declined("the charge was voided")
    assert await gateway.kept() == 0


async def test_a_charge_racing_its_void_keeps_nothing(settings):
    async with AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(open_gateway(settings)) for _ in range(2)]
        calls = []
        for number in range(20):
            calls.append(replicas[number % 2].charge(f"order-{number}", 1200, payment_method="card_ok"))
            calls.append(replicas[1 - number % 2].void(f"order-{number}"))

        await asyncio.gather(*calls)

        assert {charge.state for charge in await replicas[0].ledger()} == {ChargeState.VOIDED}
        assert await replicas[0].kept() == 0


async def test_a_repeated_refund_gives_money_back_once(gateway):
    await gateway.charge(KEY, 1200, payment_method="card_ok")

    await asyncio.gather(gateway.refund(KEY, 1200), gateway.refund(KEY, 1200))

    assert (await only_charge(gateway)).returned == 1200
    assert await gateway.charge(KEY, 1200, payment_method="card_ok") == Declined("the charge was refunded")


@pytest.mark.parametrize("taken", [0, 1199])
async def test_no_more_is_refunded_than_was_taken(gateway, taken):
    if taken:
        await gateway.charge(KEY, taken, payment_method="card_ok")

    with pytest.raises(RefundRefusedError, match=KEY):
        await gateway.refund(KEY, 1200)

    assert await gateway.kept() == taken


async def test_replicas_that_start_at_once_make_one_ledger(settings):
    async def charge_one(number: int) -> None:
        async with open_gateway(settings) as gateway:
            await gateway.charge(f"order-{number}", 100, payment_method="card_ok")

    await asyncio.gather(*(charge_one(number) for number in range(5)))

    async with open_gateway(settings) as gateway:
        assert await gateway.kept() == 500


async def test_the_ledger_is_in_the_data_directory(tmp_path, monkeypatch):
    monkeypatch.delenv("PAYMENT_GATEWAY_URL", raising=False)

    async with open_gateway(Settings(data_dir=tmp_path / "data")) as gateway:
        await gateway.charge(KEY, 1200, payment_method="card_ok")

    assert (tmp_path / "data" / "gateway.db").exists()
