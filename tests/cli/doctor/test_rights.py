"""A service whose login lacks a right at a real broker: its start or its publish fails with the cure."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.cli.doctor.spoilt_broker import Broker, add_login
from tests.end_to_end.lethal import bakery, order
from tests.eventually import eventually
from toolkit import Settings
from toolkit.app import App
from toolkit.errors import BrokerRefusesError, SagaError


@pytest.mark.parametrize(("configure", "write"), [("^$", ".*"), (".*", "^$")])
async def test_a_missing_right_ends_the_start(broker: Broker, prefix: str, tmp_path: Path, configure: str, write: str):
    add_login(broker, "baker", configure=configure, write=write)
    app = App(bakery, Settings(broker_url=broker.url("baker", "hush-hush"), exchange=prefix, data_dir=tmp_path))

    with pytest.raises(BrokerRefusesError, match=r"ACCESS_REFUSED.*; rabbitmqctl set_permissions -p / baker"):
        await app.start()

    await app.stop()


async def test_a_service_is_ready_once_it_may_publish(broker: Broker, prefix: str, tmp_path: Path):
    add_login(broker, "baker", write=f"^{re.escape(prefix)}[.].*")
    app = App(bakery, Settings(broker_url=broker.url("baker", "hush-hush"), exchange=prefix, data_dir=tmp_path))
    await app.start()

    with pytest.raises(BrokerRefusesError, match=f"write access to exchange '{prefix}'"):
        await app.publisher.publish(order(1, is_lethal=False))
    assert not (await app.readiness())["broker"]
    add_login(broker, "baker", write=".*")

    async def is_published() -> bool:
        try:
            await app.publisher.publish(order(1, is_lethal=False))
        except SagaError:
            return False
        return True

    await eventually(is_published, every=0.5)
    assert (await app.readiness())["broker"]
    await app.stop()
