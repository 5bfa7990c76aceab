"""A step that raises what ends an event loop ends its process: with an error that names the step, and nothing hangs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import PROJECT, command
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings
from toolkit.errors import UnroutableError
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: How a step raises what; a SystemExit that it raises itself, in no task of its own, is an attempt that failed.
WAYS = [
    ("wait_for", "SystemExit"),
    ("gather", "KeyboardInterrupt"),
    ("group", "SystemExit"),
    ("itself", "KeyboardInterrupt"),
]


def order(how: str, what: str) -> WireMessage:
    body = {"order_id": "order-1", "how": how, "what": what}
    return WireMessage(json.dumps(body).encode(), "customer.BreadOrdered")


def start(exchange: str, data_dir: Path, rabbitmq: Server) -> subprocess.Popen[str]:
    own = {"SAGA_EXCHANGE": exchange, "SAGA_DATA_DIR": str(data_dir / exchange), "PYTHONPATH": str(PROJECT)}
    environment = os.environ | own | {"SAGA_BROKER_URL": rabbitmq.url, "SAGA_HTTP_PORT": "0"}
    run = command("run", "tests.cli.escaping:bakery")
    return subprocess.Popen(run, env=environment, stderr=subprocess.PIPE, text=True)


async def test_step_that_ends_the_loop_ends_its_process(data_dir, rabbitmq, prefix):
    ways = [(f"{prefix}-{how}-{what}", how, what) for how, what in WAYS]
    processes = {way: start(way[0], data_dir, rabbitmq) for way in ways}
    try:
        for exchange, how, what in processes:
            async with RabbitPublisher(Settings(broker_url=rabbitmq.url, exchange=exchange)) as client:

                async def sent(client=client, how=how, what=what) -> bool:
                    try:
                        await client.publish(order(how, what))
                    except UnroutableError:
                        return False
                    return True

                await eventually(sent, within=60, every=0.1, what=f"the queue of {exchange}")
        told = {way: process.communicate(timeout=90)[1] for way, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
            process.wait()

    for (exchange, how, what), lines in told.items():
        assert processes[exchange, how, what].returncode == 1, lines
        assert lines.splitlines()[-1].startswith(f"error: sell_bread ended the process: {what}: out of flour"), lines
        assert "Traceback" not in lines


def test_step_that_ends_the_loop_fails_the_command(data_dir):
    source = (
        "import asyncio\n"
        "from tests.cli.escaping import bakery\n"
        "from tests.cli.test_escaping import order\n"
        "from toolkit import Settings\n"
        "from toolkit.cli.interrupts import run_async\n"
        "from toolkit.transport.embedded import Embedded\n"
        "async def sell():\n"
        "    async with Embedded([bakery], Settings()) as embedded:\n"
        "        await embedded.publish(order('wait_for', 'SystemExit'))\n"
        "run_async(sell())\n"
    )
    environment = os.environ | {"SAGA_DATA_DIR": str(data_dir), "PYTHONPATH": str(PROJECT)}

    ended = subprocess.run([sys.executable, "-c", source], env=environment, capture_output=True, text=True, check=False)

    assert ended.returncode == 1
    assert "EscapedError: sell_bread ended the process: SystemExit: out of flour" in ended.stderr
