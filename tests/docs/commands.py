"""The commands in the pages: which there are, how a shell block states exit codes, and where they run."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any

import typer.main

from tests.docs.pages import PAGES, PROJECT, Block
from toolkit.cli.app import app

SAGA = ".venv/bin/saga"
CLI = typer.main.get_command(app)


def environment(**changes: str) -> dict[str, str]:
    """Return this process's environment without the toolkit's and the sandboxes' settings, and with these changes."""
    prefixes = ("SAGA_", "PAYMENT_GATEWAY_", "CLEARING_HOUSE_", "RESERVATIONS_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
    return kept | changes


def commands(block: Block) -> Iterator[tuple[str, int]]:
    """Yield the commands of a shell block, each with its exit code."""
    for line in block.text.splitlines():
        command, _, remark = line.partition("  # ")
        ends = re.match(r"ends with (\d+)", remark)
        yield command.strip(), int(ends[1]) if ends else 0


def mentioned() -> list[str]:
    """Return all commands `saga …` in the pages, in texts and in blocks."""
    verb = "|".join(CLI.commands)
    pattern = re.compile(
        rf"(?:^ *|`)(?:{re.escape(SAGA)}|docker compose run --rm saga|saga) ((?:{verb})\b[^`\n]*)", re.M
    )
    lines = [match[1].partition("  # ")[0] for page in PAGES for match in pattern.finditer(page.read_text())]
    found = [line.partition(" > ")[0].strip() for line in lines]  # where its output goes is the shell's
    return sorted(set(found))


def parameters(verb: str) -> list[Any]:
    """Return the parameters of a verb, or of all the verbs of a noun."""
    command = CLI.commands[verb]
    verbs = getattr(command, "commands", {"": command})
    return [each for one in verbs.values() for each in one.params]


def is_target(name: str) -> bool:
    """Return whether the Makefile has this target."""
    return re.search(rf"^{name}:", (PROJECT / "Makefile").read_text(), re.MULTILINE) is not None


def run_saga(words: list[str], directory: os.PathLike[str], **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a directory, with no settings but these variables."""
    return subprocess.run(
        words, cwd=directory, env=environment(**variables), capture_output=True, text=True, timeout=60
    )
