"""Every block of README and docs runs as written: Python files, clients, shell commands, containers."""

from __future__ import annotations

import asyncio
import os
import shlex
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from packaging.requirements import Requirement

from tests.docs.commands import SAGA, commands, environment, is_target, run_saga
from tests.docs.pages import DOCS, PROJECT, README, TUTORIAL, Block, blocks, first_column, section
from tests.end_to_end.fleet import SERVICES, Fleet, sqlite_databases
from tests.servers import Server, docker_is_there
from toolkit import Settings
from toolkit.extras import EXTRAS

NEEDS_A_BROKER = "import pika"
#: Its commands build upon each other: tests/docs/test_harden.py.
HARDEN = DOCS / "how-to" / "harden.md"


@pytest.mark.parametrize(
    "block", [each for each in blocks("python") if NEEDS_A_BROKER not in each.text and each.page != TUTORIAL], ids=str
)
def test_python_blocks_quote_files_or_run(block: Block, tmp_path: Path):
    heading, _, quoted = block.text.partition("\n")
    if (PROJECT / heading.removeprefix("# ")).is_file():
        assert quoted in (PROJECT / heading.removeprefix("# ")).read_text()
        return
    (tmp_path / "block.py").write_text(block.text)

    done = subprocess.run(
        [sys.executable, "block.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90
    )

    assert (done.returncode, done.stderr) == (0, "")


def test_readme_saga_is_sound(tmp_path: Path):
    (block,) = blocks("python", README)
    check = (
        "from toolkit import Service\nfrom toolkit.testing import assert_sound\n"
        "assert_sound(Service(name=each.name, participants=[each]) for each in (train, hotel))\n"
    )
    (tmp_path / "block.py").write_text(f"{block.text}\n{check}")

    done = subprocess.run([sys.executable, "block.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")


async def test_pika_client_receives_its_orders_end(rabbitmq: Server, tmp_path: Path, prefix: str) -> None:
    (block,) = [each for each in blocks("python") if NEEDS_A_BROKER in each.text]
    fleet = Fleet(Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path), sqlite_databases(tmp_path))
    await fleet.start(*SERVICES)

    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", block.text),
        env=environment(SAGA_BROKER_URL=rabbitmq.url, SAGA_EXCHANGE=prefix),
        stdout=subprocess.PIPE,
    )
    output, _ = await client.communicate()
    await fleet.stop()

    assert output.startswith(b"OrderFulfilled")


@pytest.mark.parametrize("block", [each for each in blocks("sh") if each.page not in (HARDEN, TUTORIAL)], ids=str)
def test_shell_commands_end_with_the_stated_codes(block: Block, checkout: Path):
    exported: dict[str, str] = {}
    for command, code in commands(block):
        words = shlex.split(command)
        if words[0] == "export":
            exported |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "make":
            assert is_target(words[1])
        elif words[0] in (SAGA, "saga"):
            done = run_saga([SAGA, *words[1:]], checkout, **exported)
            assert done.returncode == code, f"{command}\n{done.stderr}"
        elif words[0] == "pip":  # tests/distribution/test_installs.py installs each extra
            assert {*Requirement(words[2]).extras} <= {*EXTRAS, "all"}
        else:
            assert words[:2] == ["docker", "compose"], f"no test runs {command!r}"


@pytest.mark.timeout(600)
def test_readme_container_commands_end_as_stated():
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine, so nothing can be run in containers")
    ports = first_column(section(README, "Containers"))
    name = f"saga-readme-{uuid4().hex[:8]}"
    shop = os.environ | dict.fromkeys(ports, "0") | {"COMPOSE_PROJECT_NAME": name, "SAGA_IMAGE": name}
    (block,) = [each for each in blocks("sh", README) if each.text in section(README, "Containers")]

    try:
        for command, code in commands(block):
            done = run(command, shop)
            assert done.returncode == code, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    finally:
        run("docker compose down -v --rmi local", shop)
        run(f"docker image rm -f {name}", shop)


def run(command: str, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's directory, as written, with no input."""
    return subprocess.run(
        shlex.split(command), cwd=PROJECT, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
