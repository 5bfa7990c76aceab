"""The page `/attention` shows what no rule mends, and no longer says then that nothing needs anybody."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
from pydantic import SecretStr

from services.payment.app import app as payment
from tests.cli.conftest import write_log
from tests.orders import FAILED, entry
from toolkit.client.database_client import DatabaseClient
from toolkit.clock import SystemClock
from toolkit.console.app import application
from toolkit.declaration.contract import Contract
from toolkit.persistence.saga_log import Entry


async def shown(url: str, *entries: Entry) -> str:
    """Return the page upon payment's log with these entries."""
    await write_log(url, list(entries))
    declared = {"emitted": payment.emitted, "contract": lambda: Contract.of(payment)}
    client = DatabaseClient("payment", url, queue="saga.payment", clock=SystemClock(), **declared)
    app = application([client], token=SecretStr("a-token-of-the-services"), must_sign_in=False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://localhost:8080") as browser:
        page = await browser.get("/attention")
    await client.close()
    return page.text


async def test_a_contradiction_stands_there_with_its_saga_and_the_reason(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'payment.db'}"
    ended = entry("order-8", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None)

    page = await shown(url, replace(ended, error="still completed in a saga that ended failed"))

    assert 'id="contradiction-payment-process_payment-order-8"' in page
    assert "still completed in a saga that ended failed" in page
    assert "Nothing needs anybody" not in page


async def test_the_end_of_a_saga_alone_is_no_contradiction(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'payment.db'}"

    page = await shown(url, entry("order-8", "payment", "process_payment", "ended", FAILED, "SagaEnded", position=None))

    assert 'id="contradictions"' not in page
    assert "Nothing needs anybody" in page
