"""What README and docs state is so: every block runs, every command is one, every link leads somewhere."""

from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import typer.main
from typer.testing import CliRunner

from services.demo import SERVICES as ORDER_SERVICES
from services.demo import outcome_of
from services.events import OrderCreated, order_saga
from tests.docs.pages import DOCS, PAGES, PROJECT, README, Block, blocks, first_column, rows, section
from tests.end_to_end.fleet import SERVICES, Fleet, sqlite_databases
from tests.servers import Server, docker_is_there
from toolkit import Settings
from toolkit.cli.app import app
from toolkit.cli.payload import apply, example_of, validated
from toolkit.client.database_client import DatabaseClient
from toolkit.client.saga_report import timeline_of
from toolkit.client.starting import send
from toolkit.clock import SystemClock
from toolkit.protocol.fence import TRANSITIONS, Arrival, Decision, StepState, decide
from toolkit.transport.embedded import Embedded

SAGA = ".venv/bin/saga"
CLI = typer.main.get_command(app)
NEEDS_A_BROKER = "import pika"
#: Its commands build upon each other: tests/docs/test_harden.py.
HARDEN = DOCS / "how-to" / "harden.md"


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory in which the commands do what they do in a fresh checkout after `make demo`."""
    directory = tmp_path_factory.mktemp("checkout")
    (directory / ".venv").symlink_to(sys.prefix)
    (directory / "services").symlink_to(PROJECT / "services")
    subprocess.run([SAGA, "demo"], cwd=directory, env=environment(), check=True, capture_output=True, timeout=60)
    return directory


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without any setting of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SAGA_", "PAYMENT_GATEWAY_"))}
    return kept | changes


# -- blocks that run -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block", [each for each in blocks("python") if NEEDS_A_BROKER not in each.text], ids=str)
def test_a_python_block_quotes_a_file_or_runs_as_one(block: Block, tmp_path: Path):
    heading, _, quoted = block.text.partition("\n")
    if (PROJECT / heading.removeprefix("# ")).is_file():
        assert quoted in (PROJECT / heading.removeprefix("# ")).read_text()
        return
    (tmp_path / "block.py").write_text(block.text)

    done = subprocess.run(
        [sys.executable, "block.py"], cwd=tmp_path, env=environment(), capture_output=True, text=True, timeout=90
    )

    assert (done.returncode, done.stderr) == (0, "")


async def test_the_pika_client_starts_an_order_and_hears_of_its_end(
    rabbitmq: Server, tmp_path: Path, prefix: str
) -> None:
    (block,) = [each for each in blocks("python") if NEEDS_A_BROKER in each.text]
    fleet = Fleet(Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path), sqlite_databases(tmp_path))
    await fleet.start(*SERVICES)

    client = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", block.text),
        env=environment(SAGA_BROKER_URL=rabbitmq.url, SAGA_EXCHANGE=prefix),
        stdout=subprocess.PIPE,
    )
    told, _ = await client.communicate()
    await fleet.stop()

    assert told.startswith(b"OrderFulfilled")


@pytest.mark.parametrize("block", [each for each in blocks("sh") if each.page != HARDEN], ids=str)
def test_the_commands_of_a_shell_block_end_as_it_says(block: Block, checkout: Path):
    exported: dict[str, str] = {}
    for command, code in commands(block):
        words = shlex.split(command)
        if words[0] == "export":
            exported |= dict(word.split("=", 1) for word in words[1:])
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)
        elif words[0] == SAGA:
            done = subprocess.run(
                words, cwd=checkout, env=environment(**exported), capture_output=True, text=True, timeout=60
            )
            assert done.returncode == code, f"{command}\n{done.stderr}"
        else:
            assert words[:2] == ["docker", "compose"], f"nobody runs {command!r}"


@pytest.mark.timeout(600)
def test_the_container_commands_end_as_the_readme_says():
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
    """Run a command in the project's directory, as written, with nothing to read from."""
    return subprocess.run(
        shlex.split(command), cwd=PROJECT, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True
    )


def commands(block: Block) -> Iterator[tuple[str, int]]:
    """Yield the commands of a shell block, and with which code each ends."""
    for line in block.text.splitlines():
        command, _, remark = line.partition("  # ")
        ends = re.match(r"ends with (\d+)", remark)
        yield command.strip(), int(ends[1]) if ends else 0


# -- commands, wherever they stand ---------------------------------------------------------------------------------


def mentioned() -> list[str]:
    """Return all commands `saga …` that the pages name, in their texts or in blocks."""
    verb = "|".join(CLI.commands)
    pattern = re.compile(
        rf"(?:^ *|`)(?:{re.escape(SAGA)}|docker compose run --rm saga|saga) ((?:{verb})\b[^`\n]*)", re.M
    )
    found = [match[1].partition("  # ")[0].strip() for page in PAGES for match in pattern.finditer(page.read_text())]
    return sorted(set(found))


@pytest.mark.parametrize("arguments", mentioned())
def test_a_command_that_is_named_is_understood(arguments: str):
    command, rest = CLI, shlex.split(arguments)

    while rest and hasattr(command, "commands"):
        verb, *rest = rest
        assert verb in command.commands
        command = command.commands[verb]
    if rest:
        assert command.make_context(verb, rest).params


def test_the_command_line_reference_names_all_verbs_and_their_options():
    page = DOCS / "reference" / "cli.md"
    shared = set(re.findall(r"--[a-z-]+", section(page, "Options that several verbs have")))

    headings = re.findall(r"^## saga ([\w-]+)(.*)$", page.read_text(), re.MULTILINE)

    assert [verb for verb, _ in headings] == list(CLI.commands)
    for verb, argument in headings:
        known = {option for each in parameters(verb) for option in each.opts if option.startswith("--")}
        named = set(re.findall(r"`(--[a-z-]+)", section(page, f"saga {verb}{argument}")))
        assert named <= known <= named | shared, verb


def parameters(verb: str) -> list[Any]:
    """Return what a verb takes, or what all the verbs of a noun do."""
    command = CLI.commands[verb]
    verbs = getattr(command, "commands", {"": command})
    return [each for one in verbs.values() for each in one.params]


def test_the_picture_of_the_choreography_is_what_the_command_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT)
    (picture,) = blocks("mermaid", README)

    drawn = CliRunner().invoke(app, ["graph", "--format", "mermaid"])

    assert picture.text == drawn.stdout


def test_the_findings_in_the_reference_are_those_of_the_checks():
    checks = (PROJECT / "toolkit" / "checker" / "rules.py").read_text()

    told = first_column(section(DOCS / "reference" / "cli.md", "saga graph"))

    assert sorted(told) == sorted(re.findall(r'Finding\(\s*"([a-z ]+)"', checks))


# -- tables --------------------------------------------------------------------------------------------------------


async def test_the_values_to_test_with_end_as_the_readme_says(tmp_path: Path) -> None:
    # Patience enough for four attempts, and little enough for a card that never answers.
    settings = Settings(data_dir=tmp_path, broker_url="embedded", step_timeouts={"process_payment": 6})
    expected = {}
    async with Embedded(ORDER_SERVICES, settings) as embedded:
        for changes, state, undone, _ in rows(section(README, "Values to test with")):
            order = placed(f"order-{len(expected)}", shlex.split(changes.strip("`"))[1::2])
            expected[order.order_id] = (state, undone.replace("nothing", ""))
            await send(order_saga, {order.order_id: order}, embedded, clock=SystemClock())
        assert await embedded.settled(30)
        clients = [DatabaseClient(each.name, settings.database_for(each.name)) for each in ORDER_SERVICES]
        outcomes = {
            order_id: outcome_of(await timeline_of((order_saga.name, order_id), clients)) for order_id in expected
        }
        for client in clients:
            await client.close()

    assert {order_id: (each.state, ", ".join(each.undone)) for order_id, each in outcomes.items()} == expected


def placed(order_id: str, changes: list[str]) -> OrderCreated:
    """Return the example order with these changes."""
    fields = example_of(order_saga) | {"order_id": order_id}
    for change in changes:
        apply(change, fields)
    return validated(OrderCreated, fields)


def test_every_setting_is_in_the_reference_and_nothing_else_is():
    known = [f"SAGA_{name.upper()}" for name in Settings.model_fields]

    assert first_column(section(DOCS / "reference" / "settings.md", "Of every service")) == known
    assert set(first_column(section(README, "Settings"))) < set(known)


def test_every_variable_of_the_containers_is_in_the_reference_with_its_default():
    compose = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", (PROJECT / "compose.yaml").read_text()))
    named = {
        cells[0].strip("`"): cells[1] for cells in rows(section(DOCS / "reference" / "settings.md", "Of compose.yaml"))
    }
    ports = {cells[0].strip("`"): cells[1] for cells in rows(section(README, "Containers"))}

    assert named.keys() == compose.keys()
    assert {name: value for name, value in named.items() if compose[name]} == {k: v for k, v in compose.items() if v}
    assert ports == {name: value for name, value in compose.items() if name.endswith("_PORT")}


def test_the_drawn_transitions_are_those_of_the_fence():
    drawn = [each for each in blocks("mermaid", DOCS / "explanation" / "protocol.md") if "stateDiagram" in each.text]
    arrows = re.findall(r"^ +(\S+) --> (\w+)", drawn[0].text, re.MULTILINE)

    legal = {(before or "[*]", after) for before, followers in TRANSITIONS.items() for after in followers}

    assert set(arrows) == legal
    assert len(arrows) == len(legal)


def test_the_table_of_arrivals_is_that_of_the_fence():
    words = {
        Decision.RUN: ("run it", "call again, same key"),
        Decision.VOID: ("void again, same key",),
        Decision.UNDO: ("undo it", "undo again, same key"),
        Decision.FENCE: ("write `fenced`, emit the compensation's event", "write `fenced`, emit the refusal"),
        Decision.DEFER: ("defer",),
        Decision.IGNORE: ("nothing",),
    }
    told = [cells for cells in rows(section(DOCS / "explanation" / "protocol.md", "The fence")) if len(cells) == 4]
    states = {name: cells[1:] for cells in told for name in re.findall(r"\w+", cells[0])}

    assert states.keys() == {"nowhere", *StepState}
    for name, cells in states.items():
        state = None if name == "nowhere" else StepState(name)
        for arrival, cell in zip((Arrival.FORWARD, Arrival.COMPENSATION, Arrival.ABORT), cells, strict=True):
            assert cell in words[decide(arrival, state)], (name, arrival)


def test_the_wire_reference_names_all_headers_and_all_reasons():
    names = ("envelope.py", "decoding.py", "senders.py")
    envelope, *readers = ((PROJECT / "toolkit" / "messaging" / name).read_text() for name in names)
    page = (DOCS / "reference" / "wire.md").read_text()

    headers = re.findall(r'^[A-Z_]+ = "([a-z-]+)"$', envelope, re.MULTILINE)
    reasons = set(re.findall(r'UnreadableError\(\s*"([\w ]+)"', "".join(readers)))

    assert reasons
    assert set(re.findall(r"^\| header \| `([a-z-]+)`", page, re.MULTILINE)) == set(headers)
    assert all(f"`{reason}`" in page for reason in reasons)


def test_the_glossary_has_each_word_once_in_alphabetical_order():
    words = first_column((DOCS / "glossary.md").read_text())

    assert words == sorted(set(words))


def test_the_index_of_decisions_lists_all_of_them():
    index = re.findall(r"\((\d{4}-[\w-]+\.md)\)", (DOCS / "adr" / "README.md").read_text())

    assert index == sorted(path.name for path in (DOCS / "adr").glob("0*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_every_link_leads_to_something(page: Path):
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())

    missing = [each for each in targets if "://" not in each and not (page.parent / each).exists()]

    assert missing == []


@pytest.mark.parametrize("name", ["guarantees", "failure-model"])
def test_every_test_that_is_named_as_showing_something_exists(name: str):
    page = DOCS / "explanation" / f"{name}.md"
    links = re.findall(r"\[`(test_\w+)`\]\(([^)]+)\)", page.read_text())
    files = re.findall(r"`(tests/[\w/.]+)`", page.read_text())

    missing = [test for test, file in links if f"def {test}(" not in (page.parent / file).read_text()]

    assert missing == []
    assert [file for file in files if not (PROJECT / file).exists()] == []
    assert len(links) == len(re.findall(r"`test_\w+`", page.read_text())), "a test is named without a link to its file"


def test_the_log_lines_that_the_failure_model_quotes_are_in_the_code():
    page = " ".join((DOCS / "explanation" / "failure-model.md").read_text().split())
    code = "".join(path.read_text() for path in (PROJECT / "toolkit").rglob("*.py"))

    quoted = re.findall(r"log lines? `([^`]+)`(?: and `([^`]+)`)?", page)

    assert len(quoted) > 5
    assert [line for lines in quoted for line in lines if f'"{line}"' not in code] == []


@pytest.mark.parametrize("target", ["demo", "test", "check", "format", "lock", "clean"])
def test_the_targets_that_the_guide_names_are_in_the_makefile(target: str):
    assert f"`make {target}`" in (PROJECT / "CONTRIBUTING.md").read_text()
    assert re.search(rf"^{target}:", (PROJECT / "Makefile").read_text(), re.MULTILINE)


def test_the_tree_names_every_package_and_module_at_the_top():
    tree = section(PROJECT / "CONTRIBUTING.md", "The tree")
    modules = [path.stem for path in (PROJECT / "toolkit").glob("*.py") if path.stem != "__init__"]

    packages = [f"{path.parent.name}/" for path in (PROJECT / "toolkit").glob("*/__init__.py")]

    beside = re.findall(r"`(\w+)`", re.search(r"Beside them stand ([^.]+)\.", tree)[1])
    assert sorted([*(cells[0].strip("`") for cells in rows(tree)), *beside]) == sorted([*modules, *packages])
