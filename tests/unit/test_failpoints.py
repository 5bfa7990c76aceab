"""Failpoints do nothing unless armed; armed, they SIGKILL the process at the first hit on the right path."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from toolkit import failpoints


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program in a separate process, armed by its environment."""
    set_up = "import asyncio\nfrom toolkit import failpoints\nfailpoints.prepare(['ShipmentFailed'])"
    program = f"{set_up}\n{code}\nprint('lives')"
    environment = {key: value for key, value in os.environ.items() if "CRASH" not in key} | environment
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=30
    )


def died(done: subprocess.CompletedProcess[str]) -> bool:
    return done.returncode == -signal.SIGKILL


async def test_nothing_happens_where_nothing_is_armed():
    async def answer() -> int:
        return 42

    failpoints.here("delivered", ["OrderCreated"])

    assert await failpoints.amid("published", answer(), ["OrderCreated"]) == 42


def test_an_armed_point_kills_the_process():
    assert died(run("failpoints.here('committed', ['OrderCreated'])", SAGA_CRASH_AT="committed"))


def test_another_point_does_not():
    assert run("failpoints.here('acked', ['OrderCreated'])", SAGA_CRASH_AT="committed").stdout == "lives\n"


@pytest.mark.parametrize("way", failpoints.DIRECTIONS)
def test_a_failpoint_armed_for_one_path_spares_others(way: str):
    signs = {
        "forward": ["OrderCreated", "order.OrderCreated", "Pending"],
        "compensating": ["ShipmentFailed", "shipping.ShipmentFailed", "Compensating"],
        "neither": [None, "SagaEnded", "AbortRequested", "EndRequested"],
    }
    code = f"""
import os
for sign in {[sign for each in signs.values() for sign in each]}:
    if (child := os.fork()) == 0:
        failpoints.here('acked', [sign])
        os._exit(0)
    if os.WIFSIGNALED(os.waitpid(child, 0)[1]):
        print(sign)"""

    done = run(code, SAGA_CRASH_AT="acked", SAGA_CRASH_ON=way)

    assert done.stdout.split() == [*signs[way], "lives"]


def test_running_work_has_begun_when_the_process_dies(tmp_path):
    file = tmp_path / "sent"
    code = f"""
async def send():
    open({str(file)!r}, "w").write("x")
    await asyncio.sleep(5)
asyncio.run(failpoints.amid("published", send(), ["OrderCreated"]))"""

    assert died(run(code, SAGA_CRASH_AT="published"))
    assert file.read_text() == "x"


@pytest.mark.parametrize(
    ("environment", "named"),
    [({"SAGA_CRASH_AT": "nowhere"}, "outbox-written"), ({"SAGA_CRASH_AT": "acked", "SAGA_CRASH_ON": "up"}, "forward")],
)
def test_an_unknown_failpoint_ends_the_service_at_start(environment: dict[str, str], named: str):
    command = [sys.executable, "-m", "toolkit.cli", "run", "payment"]

    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env=os.environ | environment, timeout=30
    )

    assert done.returncode == 2
    assert done.stderr.startswith("error: SAGA_CRASH")
    assert named in done.stderr
