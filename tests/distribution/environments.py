"""A virtual environment outside the checkout, and the commands that run in it."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.docs.commands import environment
from tests.docs.pages import PROJECT


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment, and the directory in which its commands run."""

    directory: Path
    cwd: Path

    def install(self, *requirements: str) -> None:
        """Install packages at the locked versions."""
        constraints = self.cwd / "constraints.txt"
        lock = (PROJECT / "requirements-dev.lock").read_text().replace("\\\n", "").splitlines()
        pins = (line.split(" --hash")[0].strip() for line in lock)
        constraints.write_text("".join(f"{pin}\n" for pin in pins if "[" not in pin))  # pip allows no extra there
        command = ("pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(constraints), *requirements)
        self.run(*command).check_returncode()

    def run(self, name: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the environment."""
        return subprocess.run(
            [str(self.directory / "bin" / name), *arguments],
            cwd=self.cwd,
            env=environment(**variables),
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    def python(self, script: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """Run a script."""
        return self.run("python", "-c", script, **variables)
