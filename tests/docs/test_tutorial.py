"""The tutorial, from its first command to its last: its files are written, its commands run, its output is printed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.commands import SAGA, commands, environment
from tests.docs.pages import PROJECT, TUTORIAL, Block, blocks

#: What differs from run to run: the time of day, and how long a check took.
TIMES = re.compile(r"\d\d:\d\d:\d\d(?:\.\d+Z)?|in \d+\.\d s")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """An empty directory with the toolkit installed in `.venv`."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def test_tutorial_runs_as_written(directory: Path):
    exported: dict[str, str] = {}
    printed = ""
    for block, language in in_order():
        if language == "python":
            write(block, directory)
        elif language == "sh":
            printed = "".join(run(command, code, directory, exported) for command, code in commands(block))
        else:
            seen = TIMES.sub("", printed).splitlines()
            assert [line for line in TIMES.sub("", block.text).splitlines() if line not in seen] == [], printed


def in_order() -> list[tuple[Block, str]]:
    """Return the blocks of the page with their languages."""
    found = [(block, language) for language in ("python", "sh", "text") for block in blocks(language, TUTORIAL)]
    return sorted(found, key=lambda each: each[0].line)


def write(block: Block, directory: Path) -> None:
    """Write a block into the file that its first line names: all of the file, or from one of its functions on."""
    heading, _, text = block.text.partition("\n")
    named = re.fullmatch(r"# (\S+\.py)(?:, from (\w+) on)?", heading)
    assert named, heading
    path = directory / named[1]
    if named[2]:
        before, decorator, _ = path.read_text().partition(f"@box_office.step()\nasync def {named[2]}(")
        assert decorator
        text = before + text
    path.write_text(text)


def run(command: str, code: int, directory: Path, exported: dict[str, str]) -> str:
    """Run a command of the page, which has to end with this code; return what it prints."""
    words = shlex.split(command)
    if words[0] == "export":
        exported |= dict(word.split("=", 1) for word in words[1:])
        return ""
    if words[1:3] == ["-m", "venv"] or words[0].endswith("/pip"):  # the directory has an environment with the toolkit
        return ""
    assert words[0] in (SAGA, ".venv/bin/python", "mkdir", "touch"), f"no test runs {command!r}"
    done = subprocess.run(
        words, cwd=directory, env=environment(**exported), capture_output=True, text=True, timeout=120
    )
    assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


def test_tutorials_code_is_formatted_and_typed(directory: Path):
    for name in ("services", "services/box_office", "services/bank"):
        (directory / name).mkdir()
        (directory / name / "__init__.py").touch()
    for block in blocks("python", TUTORIAL):
        write(block, directory)

    config = f"--config={PROJECT / 'pyproject.toml'}"
    linted = subprocess.run(
        [sys.executable, "-m", "ruff", "format", "--check", config, "."], cwd=directory, check=False
    )
    typed = subprocess.run([sys.executable, "-m", "mypy", "--strict", "services"], cwd=directory, check=False)

    assert (linted.returncode, typed.returncode) == (0, 0)
