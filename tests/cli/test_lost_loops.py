"""A service whose background loop, start or process ends from within exits with 1 and names what ended."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.conftest import PROJECT, command

#: A service whose own code does harm once it runs: HARM names it.
DOOMED = """
import asyncio, os, signal
from contextlib import asynccontextmanager

from services.payment.app import app as payment
from toolkit import Service

HARM = os.environ["HARM"]
NAME = f"redeclaration of {payment.name}"


class Harm:
    pass


async def wait_and_harm():
    while not (found := [each for each in asyncio.all_tasks() if each.get_name() == NAME]):
        await asyncio.sleep(0.05)
    if HARM == "SystemExit":
        raise SystemExit(0)
    if HARM == "KeyboardInterrupt":
        raise KeyboardInterrupt
    next(task for task in asyncio.all_tasks() if task.get_name() == f"{HARM} of {payment.name}").cancel()


@asynccontextmanager
async def provider(_):
    if HARM == "provider":
        task = asyncio.create_task(asyncio.sleep(60))
        task.cancel()
        await task
    if HARM == "provider's exit":
        raise SystemExit(0)
    harming = asyncio.create_task(wait_and_harm())
    yield Harm()


app = Service(
    name=payment.name,
    participants=payment.participants,
    tables=payment.tables,
    provides=dict(payment.provides) | {Harm: provider},
)
"""


@pytest.mark.parametrize(
    "harms", [("batcher", "relay", "watchdog"), ("pruner", "redeclaration", "SystemExit")], ids=" ".join
)
def test_service_that_loses_a_loop_names_it(environment, data_dir, tmp_path, harms):
    ended = run_doomed(environment, data_dir, tmp_path, harms)

    for harm, (code, text) in ended.items():
        fault = "ended the process: SystemExit" if harm == "SystemExit" else f"the loop {harm} of payment ended though"
        assert code == 1, text
        assert text.splitlines()[-1].startswith("error: ")
        assert fault in text.splitlines()[-1]
        assert ("background loop ended" in text) == (harm != "SystemExit"), "the loops of the others end in good order"


def test_start_cancelled_from_within_is_an_error(environment, data_dir, tmp_path):
    ended = run_doomed(environment, data_dir, tmp_path, ("provider", "provider's exit", "KeyboardInterrupt"))

    for harm in ("provider", "provider's exit"):
        code, text = ended[harm]
        assert code == 1, text
        assert text.splitlines()[-1].startswith("error: the provider of Harm ")
    code, text = ended["KeyboardInterrupt"]
    assert code == 1, text
    assert "ended the process: KeyboardInterrupt" in text.splitlines()[-1]


def run_doomed(environment, data_dir, tmp_path, harms) -> dict[str, tuple[int, str]]:
    """Run the harmful service once for each harm, side by side, until it ends; return its exit codes and its logs."""
    (tmp_path / "doomed.py").write_text(DOOMED)
    own = {"PYTHONPATH": f"{tmp_path}:{PROJECT}"}
    processes = {}
    for harm in harms:
        facts = {
            "HARM": harm,
            "SAGA_DATA_DIR": str(data_dir / harm),
            "SAGA_EXCHANGE": environment["SAGA_EXCHANGE"] + harm[0],
        }
        processes[harm] = subprocess.Popen(
            command("run", "doomed:app"), env=os.environ | environment | own | facts, stderr=subprocess.PIPE, text=True
        )
    try:
        text = {harm: process.communicate(timeout=90)[1] for harm, process in processes.items()}
    finally:
        for process in processes.values():
            process.kill()
    return {harm: (processes[harm].returncode, text[harm]) for harm in harms}
