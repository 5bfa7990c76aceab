"""Where standard output can't be written a command says so in one line, and ends with a code of its own."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.cli.conftest import command

#: A verb that prints a table, one that prints fields, and what is printed before any verb is chosen.
PRINTING = ("ls", "config -o json", "--help", "ls --help", "--version")


def run(arguments: str, redirection: str) -> subprocess.CompletedProcess[str]:
    """Run `saga` as a shell does with this redirection."""
    shell = ["sh", "-c", f'"$@" {redirection}', "sh", *command(*arguments.split())]
    return subprocess.run(shell, stderr=subprocess.PIPE, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    ("redirection", "why"),
    [("> /dev/full", "No space left on device"), (">&-", "it is closed")],
    ids=["full", "closed"],
)
@pytest.mark.parametrize("arguments", PRINTING)
def test_unwritable_output_is_one_line_and_3(logs: dict[str, str], arguments: str, redirection: str, why: str) -> None:
    ended = run(arguments, redirection)

    assert ended.returncode == 3, ended.stderr
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: standard output can't be written: {why}; ")


@pytest.mark.parametrize("arguments", ["--help", "ls"])
def test_closed_pipe_is_silent_and_141(logs: dict[str, str], arguments: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    ended = subprocess.run(command(*arguments.split()), stdout=writing, stderr=subprocess.PIPE, text=True, check=False)

    os.close(writing)
    assert (ended.returncode, ended.stderr) == (141, "")


def test_a_command_that_prints_nothing_needs_no_output(logs: dict[str, str]) -> None:
    ended = run("attention", ">&-")

    assert (ended.returncode, ended.stderr) == (0, "none\n")
