"""The base installation declares sagas; each extra adds its part, and a feature without its extra names it."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import toolkit
from tests.docs.pages import PROJECT, README, blocks
from toolkit.extras import EXTRAS

NAME = "saga-toolkit"

#: What only some users need: drivers, migrations, web, terminal, traces.
OPTIONAL = {
    *("aio_pika", "aiormq", "aiosqlite", "alembic", "anyio", "asyncpg", "faststream", "httpx", "jinja2"),
    *("opentelemetry", "pamqp", "prometheus_client", "python_multipart", "rich", "starlette", "typer", "uvicorn"),
}

#: The saga of the README.
(DECLARING,) = (each.text for each in blocks("python", README) if "Participant(" in each.text)

CHECKING = """
from toolkit import Service
from toolkit.testing import assert_sound
assert_sound(Service(name=each.name, participants=[each]) for each in (train, hotel))
"""

#: A statement for each extra, and what its error calls the feature.
FEATURES = {
    "rabbitmq": ("import toolkit.transport.rabbitmq.publisher", "RabbitMQ"),
    "postgres": ("from toolkit.persistence.database import Database; Database('postgresql://h/d')", "PostgreSQL"),
    "sqlite": ("from toolkit.persistence.database import Database; Database('sqlite:///x.db')", "SQLite"),
    "client": ("from toolkit.client import HttpClient", "HttpClient"),
    "cli": ("sys.argv[1:] = ['--version']; from toolkit.cli import main; main()", "the command saga"),
    "api": ("from toolkit.api.routes import application", "the HTTP API"),
    "console": ("import toolkit.console.server", "the console"),
    "otel": (
        "from toolkit.observability import broker_attributes, tracing; "
        "tracing.tracing_for('payment', broker_attributes.Broker())",
        "tracing, which OTEL_… switches on,",
    ),
}


def python(script: str, *hidden: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a script in which these packages can't be imported, as if they were not installed."""
    hide = f"import sys; sys.modules.update(dict.fromkeys({hidden!r})); "
    return subprocess.run(
        [sys.executable, "-c", hide + script], capture_output=True, text=True, timeout=60, env=variables, check=False
    )


def test_declaring_a_saga_loads_nothing_optional():
    # What starts sagas and gives answers from an application writes rows, and so loads the tables.
    names = [name for name, home in toolkit._HOMES.items() if not home.startswith("embedding.")]
    show = f"from toolkit import {', '.join(names)}; print(*{{name.partition('.')[0] for name in sys.modules}})"

    done = python(f"\n{DECLARING}\n{show}")

    assert (done.returncode, done.stderr) == (0, "")
    assert set(done.stdout.split()) & OPTIONAL == set()


def test_declaring_and_checking_need_no_extra():
    done = python(f"\n{DECLARING}\n{CHECKING}", *(OPTIONAL - {"prometheus_client"}))

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("extra", EXTRAS)
def test_feature_without_its_extra_names_the_cure(extra: str, tmp_path: Path):
    statement, feature = FEATURES[extra]
    missing = EXTRAS[extra][0].partition(".")[0]

    done = python(statement, missing, OTEL_TRACES_EXPORTER="otlp")

    assert done.returncode != 0
    cure = f"{feature} needs {missing}, which is not installed: pip install '{NAME}[{extra}]'"
    assert done.stderr.splitlines()[-1] in (f"toolkit.errors.MissingExtraError: {cure}", f"error: {cure}")


@pytest.mark.parametrize("package", ["toolkit", "toolkit.client", "toolkit.embedding", "toolkit.testing"])
def test_public_names_load_or_name_their_extra(package: str):
    script = f"""
import {package} as package
from toolkit.errors import MissingExtraError

for name in package.__all__:
    try:
        getattr(package, name)
    except MissingExtraError as error:
        assert error.extra in {sorted(EXTRAS)}
"""

    done = python(script, *(OPTIONAL - {"prometheus_client"}))

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("verb", "extra"), [("console", "console"), ("doctor", "rabbitmq"), ("run payment", "api")])
def test_command_without_an_extra_ends_with_2(verb: str, extra: str):
    run = f"sys.argv[:] = ['saga', *{verb.split()!r}]; from toolkit.cli import main; main()"

    done = python(run, *EXTRAS[extra][:1], SAGA_PACKAGE="services")

    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.endswith(f"which is not installed: pip install '{NAME}[{extra}]'\n")


def test_extras_install_the_modules_they_require():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]
    declared = {name: list(map(Requirement, each)) for name, each in project["optional-dependencies"].items()}
    of_modules = packages_distributions()

    def brought(extra: str) -> set[str]:
        own = {canonicalize_name(each.name) for each in declared[extra]} - {NAME}
        nested = (name for each in declared[extra] if each.name == NAME for name in each.extras)
        return own.union(*(brought(each) for each in nested))

    assert {*EXTRAS, "all"} == {*declared}
    for extra, modules in EXTRAS.items():
        found = {canonicalize_name(name) for each in modules for name in of_modules[each.partition(".")[0]]}
        assert found & brought(extra), extra
        assert all(canonicalize_name(of_modules[each][0]) in brought(extra) for each in modules if "." not in each)
    assert brought("all") == set().union(*map(brought, EXTRAS))
