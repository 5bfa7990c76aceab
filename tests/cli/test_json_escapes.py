"""What any verb writes as JSON holds no character that steers a terminal, and parses to what was stored."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest
import typer.main

from tests.cli.conftest import PROJECT, TOKEN, command
from tests.cli.test_golden import NOWHERE, VERBS, output_until, verbs, write
from toolkit.cli.app import app

#: DEL, CSI, the three marks, an override, an isolate, a separator of lines: one of each kind.
MARK = "\x7f\x9b\u061c\u200e\u200f\u202e\u2066\u2028"
STEERING = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
#: The columns, of all tables, that hold a text from outside. An id that is written anew is checked, so that it can't be
#: such a text; one that is read comes as it stands.
TEXTS = ("error", "reason", "actor", "traceback", "subject")
IDS = ("saga_id",)
#: What prints nothing that came from outside.
SILENT = {
    "check",
    "stats",
    "prune",
    "trigger",
    "nudge",
    "nudge-ended",
    "replay",
    "topology",
    "topology-permissions",
    "db-sql",
    "db-sql-from",
}
WRITING = ("nudge", "nudge-ended", "replay", "prune", "trigger", "dead-letters-redriven", "dead-letters-drop")
CASES: dict[str, tuple[tuple[str, ...], int]] = {
    **{name: case for name, case in VERBS.items() if name not in ("ls-failed", "trace-completed")},
    "trigger": (("trigger", "OrderCreated", "--set", "order_id=order-9", "--wait", "30"), 0),
    "doctor": (("doctor", "payment"), 1),
    "check": (("check",), 0),
}
#: Runs the cases that its argument holds one after another, as starting a process for each would take a minute.
EACH = """
import json, os, sys
from toolkit.cli import main
for name, arguments, environment in json.loads(sys.argv[1]):
    os.environ.update(environment)
    sys.argv[1:] = arguments
    code = 0
    try:
        main()
    except SystemExit as end:
        code = end.code or 0
    except Exception as error:
        code = f"{type(error).__name__}: {error}"
    sys.stdout.flush()
    os.write(1, f"\\0{name}\\0{code}\\0".encode())
"""


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden databases, with the mark in each text that came from outside."""
    directory = tmp_path_factory.mktemp("hostile")
    asyncio.run(write(directory))
    for path in directory.glob("*.db"):
        mark(path, TEXTS)
    return directory


def copied(databases: Path, to: Path, columns: Sequence[str]) -> Path:
    """Copy the databases to where the command finds them, and put the mark into more columns."""
    to.mkdir()
    for path in databases.glob("*.db"):
        (to / path.name).write_bytes(path.read_bytes())
        mark(to / path.name, columns)
    return to


def mark(path: Path, wanted: Sequence[str]) -> None:
    with closing(sqlite3.connect(path)) as database, database:
        tables = [name for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
        for table in tables:
            columns = {column[1] for column in database.execute(f"PRAGMA table_info({table})")}
            for column in columns.intersection(wanted):
                database.execute(f"UPDATE {table} SET {column} = {column} || ?", [MARK])
        surrogate = ("for some reason", r"lone \ud800")
        database.execute("UPDATE saga_log SET emitted_body = replace(emitted_body, ?, ?)", surrogate)


@pytest.fixture(scope="module")
def printed(databases: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """What each case prints as JSON, from a real process, by the case's name; with its exit code."""
    cases = []
    for name, (arguments, _) in CASES.items():
        directory = copied(databases, tmp_path_factory.mktemp(name) / f"data{MARK}", () if name in WRITING else IDS)
        broker = "embedded" if name == "trigger" else NOWHERE
        ids = "" if name in WRITING else MARK
        marked = [re.sub(r"^order-\d+$", rf"\g<0>{ids}", each) for each in arguments]
        variables = {"SAGA_DATA_DIR": str(directory), "SAGA_BROKER_URL": broker, f"SAGA_UNHEARD_OF{MARK}": "1"}
        cases.append((name, [*marked, "-o", "json"], variables))
    ours = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_")}
    done = subprocess.run(
        [sys.executable, "-c", EACH, json.dumps(cases)], capture_output=True, env=ours, cwd=PROJECT, timeout=90
    )
    parts = done.stdout.decode().split("\0")
    return {name: (text, code) for text, name, code in zip(parts[::3], parts[1::3], parts[2::3], strict=False)}


@pytest.fixture
def hostile(databases: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the databases for this test alone."""
    monkeypatch.setenv("SAGA_BROKER_URL", NOWHERE)
    return copied(databases, data_dir, IDS)


@pytest.mark.parametrize("name", CASES)
def test_a_verb_escapes_what_steers_a_terminal(printed: dict[str, tuple[str, str]], name: str):
    text, code = printed[name]

    assert code == str(CASES[name][1]), text
    assert_sound(text, has_mark=name not in SILENT)


def test_lines_of_json_are_escaped_too(hostile: Path, tmp_path: Path):
    out, error = output_until(lambda shown: "dead_lettered" in shown, tmp_path, "tail", "--limit", "3", "-o", "jsonl")

    for line in out.splitlines():
        assert_sound(line)
    assert error == ""


def test_each_verb_that_writes_json_is_among_them():
    written = {name for name, verb in verbs(typer.main.get_command(app)) if "output" in {p.name for p in verb.params}}

    elsewhere = {"tail", "questions", "answer"}  # tested above, and in test_answers.py
    assert {each for each in written if not any(case.startswith(each) for case in CASES)} == elsewhere


def test_a_log_line_in_json_is_escaped(hostile: Path):
    misspelt = "SAGA_MAX_MESSAGE_BYTES\x9b\u202e"
    variables = {misspelt: "1", "SAGA_LOG_FORMAT": "json"}
    process = subprocess.Popen(command("run", "payment"), stderr=subprocess.PIPE, env=os.environ | variables)

    line = process.stderr.readline().decode()
    process.kill()
    process.communicate(timeout=30)

    assert not STEERING.search(line)
    assert json.loads(line)["variable"] == misspelt


def test_an_answer_of_the_api_is_escaped(hostile: Path, serve: Any):
    address = serve("payment", f"sqlite:///{hostile}/payment.db")
    client = httpx.Client(base_url=address, headers={"Authorization": f"Bearer {TOKEN}"}, trust_env=False)

    with client:
        for path in ("/log", "/sagas", "/dead-letters"):
            assert_sound(client.get(path).content.decode())


def assert_sound(text: str, *, has_mark: bool = True) -> None:
    """See that a text is JSON without steering characters, and that the mark is in what it parses to."""
    assert not STEERING.search(text), text
    assert has_mark == (MARK in "\0".join(texts(json.loads(text)))), text


def texts(value: Any) -> Iterator[str]:
    """Yield all texts of a JSON value, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, each in value.items():
            yield from (key, *texts(each))
    elif isinstance(value, list):
        for each in value:
            yield from texts(each)
