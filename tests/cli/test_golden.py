"""Each verb's output, in each format, equals its golden file, on one history that never changes.

`SAGA_TEST_GOLDEN=write make test PYTEST_ARGS="-k golden"` writes the files again; look at the difference before you
commit it. Digits that depend on the day are replaced by `#`.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from tests.cli.conftest import SERVICES, command, service_options
from tests.cli.golden_history import RETRYING, STUCK, write
from tests.eventually import eventually
from tests.servers import Server
from toolkit.cli.app import app

GOLDEN = Path(__file__).parent / "golden"
FORMATS = ("table", "json", "jsonl")
WHY = ("--reason", "the gateway is back")
#: Where no broker is.
NOWHERE = "amqp://guest:guest@127.0.0.1:1/"
#: Seconds for what has to come; a busy machine takes its time.
PATIENCE = 30

#: The verbs by the names of their files, each in all formats, and with which code it ends.
VERBS: dict[str, tuple[tuple[str, ...], int]] = {
    "ls": (("ls",), 0),
    "ls-failed": (("ls", "--state", "Failed"), 0),
    "trace-completed": (("trace", "order-1"), 0),
    "trace-refused": (("trace", "order-3"), 0),
    "trace-retrying": (("trace", RETRYING), 0),
    "trace-stuck": (("trace", STUCK), 0),
    "trace-overdue": (("trace", "order-2"), 0),
    "trace-unknown": (("trace", "order-404"), 1),
    "log": (("log", "payment"), 0),
    "stats": (("stats",), 0),
    "watch": (("watch",), 0),
    "verify": (("verify",), 1),
    "config": (("config",), 0),
    "topology": (("topology",), 0),
    "topology-permissions": (("topology", "--permissions"), 0),
    "attention": (("attention",), 1),
    "attention-overdue": (("attention", "--only", "overdue"), 1),
    "attention-outbox": (("attention", "--only", "outbox"), 1),
    "audit": (("audit", "payment"), 0),
    "nudge": (("nudge", "order-2", *WHY), 0),
    "nudge-ended": (("nudge", "order-3", *WHY), 1),
    "replay": (("replay", "order-3", *WHY), 0),
    "prune": (("prune", "--older-than", "30d", *WHY), 0),
    "dead-letters-ls": (("dead-letters", "ls", "payment"), 0),
    "dead-letters-show": (("dead-letters", "show", "payment", "letter-1"), 0),
    "dead-letters-redrive": (("dead-letters", "redrive", "payment", "--all", "--dry-run"), 0),
    "dead-letters-redriven": (("dead-letters", "redrive", "payment", "--all", *WHY), 0),
    "dead-letters-drop": (("dead-letters", "drop", "payment", "--all", *WHY), 0),
    "db-current": (("db", "current", "payment", "shipping"), 0),
    "db-upgrade": (("db", "upgrade", "payment"), 0),
    "db-sql": (("db", "sql", "payment"), 0),
    "db-sql-from": (("db", "sql", "payment", "--from", "0001"), 0),
}
#: And those that have one format, or none.
OTHERS: dict[str, tuple[tuple[str, ...], int]] = {
    "abort-ended.txt": (("abort", "order-3", *WHY), 1),
    "abort-unknown.txt": (("abort", "order-404", *WHY), 1),
    "asyncapi.json": (("asyncapi", "payment"), 0),
    "contract.json": (("contract", "payment"), 0),
    "graph.text.txt": (("graph",), 0),
    "graph.mermaid.txt": (("graph", "--format", "mermaid"), 0),
    "help.txt": (("--help",), 0),
    "new.txt": (("new", "ticket-shop", "--dry-run"), 0),
    "tail.json.txt": (("tail", "-o", "json"), 2),
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The four services' databases, made once."""
    directory = tmp_path_factory.mktemp("golden")
    asyncio.run(write(directory))
    return directory


@pytest.fixture
def known(written: Path, data_dir: Path) -> Path:
    """A copy of them, where the command finds them."""
    data_dir.mkdir()
    for path in written.glob("*.db"):
        (data_dir / path.name).write_bytes(path.read_bytes())
    return data_dir


@pytest.fixture
def broker(data_dir: Path, rabbitmq: Server, prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real broker for the command, with exchange and queues of the test's own."""
    for name, value in {"BROKER_URL": rabbitmq.url, "EXCHANGE": prefix, "HTTP_PORT": "0"}.items():
        monkeypatch.setenv(f"SAGA_{name}", value)


@pytest.mark.parametrize("output", FORMATS)
@pytest.mark.parametrize("name", VERBS)
def test_verbs_output_is_the_golden_one(saga, known, name, output):
    arguments, code = VERBS[name]

    result = saga(*arguments, "-o", output)

    assert isinstance(result.exception, SystemExit | None), result.exception  # a crash has an exit code, too
    assert result.exit_code == code, result.output
    assert_golden(f"{name}.{output}.txt", result.stdout, result.stderr, known)


@pytest.mark.parametrize("output", FORMATS)
def test_trigger_output_is_the_golden_one(saga, data_dir, monkeypatch, output):
    monkeypatch.setenv("SAGA_BROKER_URL", "embedded")

    result = saga("trigger", "OrderCreated", "--set", "order_id=order-9", "--wait", "30", "-o", output)

    assert result.exit_code == 0, result.output
    assert_golden(f"trigger.{output}.txt", result.stdout, result.stderr, data_dir)


@pytest.mark.parametrize("name", OTHERS)
def test_single_format_output_is_the_golden_one(saga, known, name):
    arguments, code = OTHERS[name]

    result = saga(*arguments)

    assert result.exit_code == code, result.output
    assert_golden(name, result.stdout, result.stderr if name.endswith("txt") else "", known)


@pytest.mark.parametrize("output", FORMATS)
def test_doctor_output_is_the_golden_one(saga, known, monkeypatch, output):
    monkeypatch.setenv("SAGA_BROKER_URL", NOWHERE)
    monkeypatch.setenv("SAGA_PREFECH", "10")

    result = saga("doctor", "payment", "-o", output)

    assert result.exit_code == 1
    assert_golden(f"doctor.{output}.txt", result.stdout, result.stderr, known)


def test_demo_output_is_the_golden_one(saga_process, data_dir):
    with_saga = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    result = saga_process("demo", PATH=with_saga)

    assert result.returncode == 0, result.stdout + result.stderr
    now = (r"(?<=begun ).*Z$", r"(?<=^\S  )[\d:.]+")
    assert_golden("demo.txt", result.stdout, result.stderr, data_dir, *now)


@pytest.mark.parametrize("output", ["table", "jsonl"])
def test_tail_output_is_the_golden_one(known, tmp_path, output):
    told = output_until(lambda shown: "dead_lettered" in shown, tmp_path, "tail", "--limit", "3", "-o", output)

    assert_golden(f"tail.{output}.txt", *told, known)


def test_console_output_is_the_golden_one(known, tmp_path):
    def answers(shown: str) -> bool:
        url = re.search(r"http:\S+", shown)
        return bool(url) and httpx.get(url[0], trust_env=False, timeout=PATIENCE).is_success

    told = output_until(answers, tmp_path, "console", "--port", "0")

    assert_golden("console.txt", *told, known)


@pytest.mark.parametrize("log_format", ["console", "json"])
def test_run_output_is_the_golden_one(broker, tmp_path, monkeypatch, data_dir, log_format):
    monkeypatch.setenv("SAGA_LOG_FORMAT", log_format)

    told = output_until(lambda shown: "service started" in shown, tmp_path, "run", "payment")

    assert_golden(f"run.{log_format}.txt", *told, data_dir)


def test_abort_output_is_the_golden_one(saga_process, broker, known, tmp_path):
    unconsumed = saga_process("abort", "order-2", *WHY)
    away = saga_process("abort", "order-2", *WHY, SAGA_BROKER_URL=NOWHERE)
    elsewhere = str(tmp_path / "elsewhere")
    output_until(lambda shown: "service started" in shown, tmp_path, "run", "payment", SAGA_DATA_DIR=elsewhere)
    # It has ended, and its queue stays.
    heard = saga_process("abort", "order-2", *WHY)

    assert (unconsumed.returncode, away.returncode, heard.returncode) == (3, 3, 0)
    assert_golden("abort.unheard.txt", unconsumed.stdout, unconsumed.stderr, known)
    assert_golden("abort.away.txt", away.stdout, away.stderr, known)
    assert_golden("abort.txt", heard.stdout, heard.stderr, known)


@pytest.mark.parametrize(
    ("name", "code"), [("trace-refused", 3), ("stats", 3), ("watch", 3), ("ls", 3), ("attention", 3)]
)
def test_output_without_a_service_is_the_golden_one(saga, known, name, code):
    urls = {each: f"sqlite:///{known}/{each}.db" for each in SERVICES} | {"shipping": "http://127.0.0.1:1"}

    result = saga(*VERBS[name][0], *service_options(urls))

    assert result.exit_code == code
    assert_golden(f"{name}.away.txt", result.stdout, result.stderr, known)


def test_each_verb_and_format_has_a_golden_file():
    wanted = [
        f"{name}*.{each}.txt" if each else f"{name}.*"
        for name, verb in verbs(typer.main.get_command(app))
        for each in formats_of(verb)
    ]

    assert "dead-letters-show*.jsonl.txt" in wanted
    assert [each for each in wanted if not list(GOLDEN.glob(each))] == []


def verbs(group: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield all verbs by the names that their files begin with."""
    for name, verb in group.commands.items():
        if hasattr(verb, "commands"):
            yield from verbs(verb, f"{before}{name}-")
        else:
            yield f"{before}{name}", verb


def formats_of(verb: Any) -> list[str]:
    """Return the names of a verb's formats, or one that is empty."""
    defaults = [each.default for each in verb.params if each.name in ("output", "drawing")]
    return [str(each) for each in type(defaults[0])] if defaults else [""]


def output_until(done: Callable[[str], bool], directory: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    """Run what ends with Ctrl-C, press that once this is true of what it printed, and return all that it printed."""
    out, error = directory / "stdout", directory / "stderr"

    async def look() -> bool:
        return done(out.read_text() + error.read_text())

    with (
        out.open("wb") as stdout,
        error.open("wb") as stderr,
        subprocess.Popen(command(*arguments), stdout=stdout, stderr=stderr, env=os.environ | environment) as process,
    ):
        try:
            asyncio.run(eventually(look, within=PATIENCE, what=f"the output of saga {arguments[0]}"))
            process.send_signal(signal.SIGINT)
            code = process.wait(PATIENCE)
        finally:
            process.kill()
    assert code == 0, error.read_text()
    return out.read_text(), error.read_text()


def assert_golden(name: str, stdout: str, stderr: str, directory: Path, *now: str) -> None:
    """Compare what was printed with the file of this name; the patterns say what else in it depends on today."""
    shown = stdout + ("-- on standard error:\n" + stderr if stderr else "")
    shown = lasting(shown.replace(str(directory), "DATA_DIR"), *now)
    shown = (
        re.sub("   +", "  ", shown) if name == "config.table.txt" else shown
    )  # it is as wide as the directory's name
    shown = re.sub(r'("outbox_oldest": ?)[\d.]+', r"\1#", shown)
    path = GOLDEN / name
    if os.environ.get("SAGA_TEST_GOLDEN") == "write":
        path.write_text(shown)
    assert shown == path.read_text()


def lasting(shown: str, *now: str) -> str:
    """Return what was printed with `#` for each digit that depends on today."""
    patterns = (
        r"\b\d+ d\b",  # ages
        r'(?:(?<="at": ")|(?<="at":"))[^"]*(?=",\s*"(?:services|is_counted)")',  # when one looked
        r"\b\d{5,}\.\d s",  # how old the oldest is
        r"^\d\d:\d\d:\d\d UTC",
        r"\b\d{4}-\d\d-\d\dT[\d:]+\.\d{6}Z",  # when something was logged
        r"(?:(?<=port=)|(?<=\"port\": )|(?<=//127\.0\.0\.1:))\d{5}\b",  # any port that was free
        r"(?<=version\": \")[\d.]+(?=\",\n    \"description)|(?<=saga-toolkit )[\d.]+(?=\.\")",
        r"(?<=toolkit_version\": \")[\d.]+|(?<=\"version\": \")[\d.]+(?=\",\n          \"rules)",
    )
    return re.sub("|".join((*patterns, *now)), lambda match: re.sub(r"\d", "#", match[0]), shown, flags=re.MULTILINE)
