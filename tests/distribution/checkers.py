"""Type checkers, run on users' files as users run them: outside the checkout, with the installed package."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.docs.commands import environment
from tests.docs.pages import PROJECT

#: How each checker prints an error: the file, the line, the text.
_MYPY = re.compile(r"^(\w+)\.py:(\d+): error: (.*)$", re.MULTILINE)
_PYRIGHT = re.compile(r"/(\w+)\.py:(\d+):\d+ - error: (.*)$", re.MULTILINE)


def mypy(directory: Path, files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the errors of `mypy --strict`, by the file's name, as `line: text`."""
    _write(directory, files)
    cache = PROJECT / ".mypy_cache" / "users"
    options = ("--strict", "--config-file=", f"--cache-dir={cache}")
    return _errors(_MYPY, directory, files, sys.executable, "-m", "mypy", *options)


def pyright(directory: Path, files: Mapping[str, str]) -> dict[str, list[str]]:
    """Return the errors of pyright, likewise; the package brings it and its Node, so that it downloads nothing."""
    _write(directory, files)
    return _errors(_PYRIGHT, directory, files, sys.executable, "-m", "pyright", "--pythonpath", sys.executable)


def _write(directory: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (directory / f"{name}.py").write_text(text)


def _errors(pattern: re.Pattern[str], directory: Path, files: Mapping[str, str], *command: str) -> dict[str, list[str]]:
    done = subprocess.run(
        [*command, *(f"{name}.py" for name in files)],
        cwd=directory,
        env=environment(PYRIGHT_PYTHON_IGNORE_WARNINGS="1"),
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    found: dict[str, list[str]] = {name: [] for name in files}
    for name, line, text in pattern.findall(done.stdout):
        found[name].append(f"{line}: {text}")
    assert done.returncode == int(any(found.values())), done.stdout + done.stderr
    return found
