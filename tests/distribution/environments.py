"""Where the wheel is used: in an environment of its own, or unpacked beside this environment's packages."""

from __future__ import annotations

import re
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

from tests.docs.commands import environment
from tests.docs.pages import PROJECT

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and the directory in which its commands run."""

    directory: Path
    cwd: Path

    def install(self, *requirements: str) -> None:
        """Install packages at the locked versions."""
        constraints = self.cwd / "constraints.txt"
        lock = (PROJECT / "requirements-dev.lock").read_text().replace("\\\n", "").splitlines()
        pins = (re.sub(r"\[.*?\]", "", line.split(" --hash")[0].strip()) for line in lock)  # pip allows no extra there
        constraints.write_text("".join(f"{pin}\n" for pin in pins))
        command = ("pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints), *requirements)
        self.run(*command).check_returncode()

    def run(self, name: str, *arguments: str, **variables: str) -> Done:
        """Run a command of the environment."""
        return _run([str(self.directory / "bin" / name), *arguments], self.cwd, variables)

    def saga(self, *arguments: str, **variables: str) -> Done:
        """Run the command `saga`."""
        return self.run("saga", *arguments, **variables)


@dataclass(frozen=True, slots=True)
class Unpacked:
    """The wheel's files, and the directory in which its commands run; this environment has the dependencies.

    The interpreter runs without `site`, which would find the checkout.
    """

    files: Path
    cwd: Path

    def python(self, *arguments: str, **variables: str) -> Done:
        """Run the interpreter."""
        path = f"{self.files}:{sysconfig.get_path('purelib')}"
        return _run([sys.executable, "-S", *arguments], self.cwd, variables | {"PYTHONPATH": path})

    def saga(self, *arguments: str, **variables: str) -> Done:
        """Run the command `saga`."""
        return self.python("-m", "toolkit.cli", *arguments, **variables)


def _run(command: list[str], cwd: Path, variables: dict[str, str]) -> Done:
    return subprocess.run(
        command, cwd=cwd, env=environment(**variables), capture_output=True, text=True, timeout=600, check=False
    )
