"""What the command imports before it works: what it does not need costs each start a second."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import toolkit
from toolkit.cli.app import app
from toolkit.cli.options import MOST_SECONDS
from toolkit.configuration.settings import LONGEST_WAIT, PREFIX

VERBS = [
    *(each.callback.__name__.replace("_", "-") for each in app.registered_commands),
    *("dead-letters redrive", "db upgrade"),
]
#: What takes long to import, and belongs to the work of a verb.
HEAVY = {
    *("aio_pika", "aiormq", "aiosqlite", "alembic", "asyncio", "asyncpg", "faststream", "httpx", "jinja2"),
    *("opentelemetry", "prometheus_client", "pydantic_settings", "rich", "sqlalchemy", "sqlmodel", "starlette"),
    *("structlog", "tenacity", "uvicorn"),
}
#: With some room for another Python: 193 were imported in the first, and 301 in the second when this was written.
MOST_FOR_HELP, MOST_FOR_A_VERB = 260, 360

#: Runs the command, or asks for the help of each of the verbs, and prints what was imported at its end.
IMPORTED = """
import json, sys
from toolkit.cli import main
sys.argv[0] = "saga"
out, sys.stdout = sys.stdout, sys.stderr
calls = [sys.argv[1:]] if sys.argv[1:2] != ["demo"] else [[*verb.split(), "--help"] for verb in sys.argv[1:]]
for sys.argv[1:] in calls:
    try:
        main()
    except SystemExit as ended:
        if ended.code:
            raise
print(json.dumps(sorted(sys.modules)), file=out)
"""


def imported_by(*arguments, **environment):
    """Return the modules that a command imports, and those of the heavy ones that it does."""
    done = subprocess.run(
        (sys.executable, "-c", IMPORTED, *arguments), capture_output=True, text=True, env=os.environ | environment,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    modules = json.loads(done.stdout)
    return modules, {each.partition(".")[0] for each in modules} & HEAVY


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_import_nothing_heavy(option):
    modules, heavy = imported_by(option)

    assert heavy == set()
    assert "pydantic" not in modules
    assert len(modules) <= MOST_FOR_HELP


def test_the_help_of_all_verbs_imports_nothing_heavy():
    modules, heavy = imported_by(*VERBS)  # in one process: what any of them imports is there at the end

    assert heavy == set()
    assert len(modules) <= MOST_FOR_A_VERB


@pytest.mark.parametrize("words", ["saga tr", "saga dead-letters re", "saga ls --st"])
def test_completion_in_a_shell_imports_nothing_heavy(words):
    asked = {"_SAGA_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}

    modules, heavy = imported_by(**asked)

    assert heavy == set()
    assert len(modules) <= MOST_FOR_A_VERB


def test_the_settings_are_shown_without_a_database_driver(data_dir):
    modules, heavy = imported_by("config")

    assert heavy <= {"asyncio", "pydantic_settings", "rich"}
    assert not {"rich.live", "rich.progress", "rich.markdown", "rich.syntax", "rich.traceback"} & set(modules)


def test_a_service_starts_without_alembic():
    script = "import sys, toolkit.app; print('alembic' in sys.modules)"

    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "False\n"


def test_a_graph_is_drawn_without_broker_or_server():
    _, heavy = imported_by("graph")

    assert not {"aio_pika", "faststream", "httpx", "jinja2", "opentelemetry", "starlette", "uvicorn"} & heavy


def test_importing_the_toolkit_imports_each_name_at_need():
    script = "import sys, toolkit; toolkit.Saga; print('sqlalchemy' in sys.modules)"

    done = subprocess.run((sys.executable, "-c", script), capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout == "False\n"


def test_each_public_name_is_there_to_be_imported():
    everything: dict[str, object] = {}
    exec("from toolkit import *", everything)

    assert {*toolkit.__all__} <= everything.keys()
    assert {*toolkit.__all__} == toolkit._HOMES.keys()
    assert {*toolkit.__all__} <= {*dir(toolkit)}
    classes = {*toolkit.__all__} - {"CallNext", "Middleware", "SagaId"}
    assert all(getattr(toolkit, name).__name__ == name for name in classes)
    with pytest.raises(AttributeError, match="Sagas"):
        _ = toolkit.Sagas


def test_duplicated_definitions_are_equal():
    from toolkit.cli import exit_codes

    assert LONGEST_WAIT.total_seconds() == MOST_SECONDS
    assert exit_codes._PREFIX == PREFIX
