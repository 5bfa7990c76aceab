"""Every command in the pages parses, and the command line reference is complete."""

from __future__ import annotations

import re
import shlex

import pytest
from typer.testing import CliRunner

from tests.docs.commands import CLI, is_target, mentioned, parameters
from tests.docs.pages import DEMONSTRATED, DOCS, EXAMPLES, PAGES, PROJECT, README, blocks, first_column, section
from toolkit.checker.moves import Invariant
from toolkit.cli.app import app

PAGE = DOCS / "reference" / "cli.md"
#: The root span of a trace, `saga order`, and three log lines.
NOT_VERBS = {"contradicts", "is", "needs", "order"}


@pytest.mark.parametrize("arguments", mentioned())
def test_every_named_command_parses(arguments: str):
    command, rest = CLI, shlex.split(arguments)

    while rest and hasattr(command, "commands"):
        verb, *rest = rest
        assert verb in command.commands
        command = command.commands[verb]
    if rest:
        assert command.make_context(verb, rest).params


def test_every_named_verb_exists():
    pages = [page for page in PAGES if page.name != "CHANGELOG.md"]  # which names removed verbs

    named = {verb for page in pages for verb in re.findall(r"`saga ([a-z][a-z-]*)", page.read_text())}

    assert named - set(CLI.commands) == NOT_VERBS


def test_cli_reference_names_all_verbs_and_options():
    shared = set(re.findall(r"--[a-z-]+", section(PAGE, "Options that several verbs have")))

    headings = re.findall(r"^## saga ([\w-]+)(.*)$", PAGE.read_text(), re.MULTILINE)

    assert [verb for verb, _ in headings] == list(CLI.commands)
    for verb, argument in headings:
        known = {option for each in parameters(verb) for option in each.opts if option.startswith("--")}
        named = set(re.findall(r"`(--[a-z-]+)", section(PAGE, f"saga {verb}{argument}")))
        assert named <= known <= named | shared, verb


def drawn(package: str) -> str:
    """Return the picture that `saga graph` draws of the services in a package."""
    return CliRunner().invoke(app, ["graph", "--format", "mermaid"], env={"SAGA_PACKAGE": package}).stdout


def test_readme_graphs_are_what_saga_graph_draws(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT)

    packages = ["services", *(f"examples.{name}" for name in DEMONSTRATED)]

    assert [each.text for each in blocks("mermaid", README)] == [drawn(package) for package in packages]


@pytest.mark.parametrize("name", EXAMPLES)
def test_example_graph_is_what_saga_graph_draws(name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(PROJECT)
    (picture,) = blocks("mermaid", EXAMPLES[name])

    assert picture.text == drawn(f"examples.{name}")


def test_findings_tables_match_the_checker():
    rules = (PROJECT / "toolkit" / "checker" / "rules.py").read_text()

    named = first_column(section(PAGE, "saga check [SERVICE|MODULE:ATTRIBUTE|FILE.json]..."))

    static = re.findall(r'(?:_at\(\s*\w+,|Finding\()\s*"([a-z ]+)"', rules)
    assert sorted(each for each in named if each != "finding") == sorted([*static, *Invariant])


@pytest.mark.parametrize("target", ["demo", "test", "check", "format", "lock", "clean"])
def test_guide_names_targets_of_the_makefile(target: str):
    assert f"`make {target}`" in (PROJECT / "CONTRIBUTING.md").read_text()
    assert is_target(target)
