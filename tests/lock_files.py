"""Check that each lock file names all that pip installs: a pin, its hashes and its extras for every requirement.

An extra that a lock leaves out is resolved by pip on the day of the installation: pip 23.2, which Python 3.11 brings,
then takes the newest release, finds no hash for it, and stops. `make check` runs this file.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[1]
LOCKS = ("requirements.lock", "requirements-dev.lock", "requirements-bench.lock", "requirements-audit.lock")

#: The extras that each package is pinned with; a package may have several lines, one for each kind of machine.
Pins = dict[str, set[str]]


def main() -> int:
    """Print what is wrong with the locks; return 1 if anything is."""
    installed = {
        canonicalize_name(each.metadata["Name"]): list(map(Requirement, each.requires or ()))
        for each in metadata.distributions()
    }
    problems = [
        f"{name}: {problem}" for name in LOCKS for problem in problems_of((PROJECT / name).read_text(), installed)
    ]
    for problem in problems:
        print(problem, file=sys.stderr)  # noqa: T201 -- a command's output
    return int(bool(problems))


def problems_of(lock: str, installed: Mapping[str, Iterable[Requirement]]) -> list[str]:
    """Return what is wrong with a lock's text; `installed` has the requirements of each package of this environment."""
    requirements = re.sub(r"\\\n", " ", lock).strip().splitlines()
    problems = [
        f"{line.split()[0]} has no exact version or no hash; run `make lock`"
        for line in requirements
        if "==" not in line.split(";")[0] or "--hash=sha256:" not in line
    ]
    pins = _pins(requirements)
    for name in sorted(pins.keys() & installed.keys()):
        problems += [f"{name} needs {missing}; run `make lock`" for missing in _missing(pins, name, installed[name])]
    return problems


def _pins(requirements: Iterable[str]) -> Pins:
    pins: Pins = {}
    for line in requirements:
        pinned = Requirement(line.split(" --hash")[0])
        pins.setdefault(canonicalize_name(pinned.name), set()).update(pinned.extras)
    return pins


def _missing(pins: Pins, name: str, requirements: Iterable[Requirement]) -> Iterable[str]:
    """Yield what the package requires here, with the extras that it is pinned with, and no line pins."""
    for each in requirements:
        contexts = [{"extra": extra} for extra in ("", *pins[name])]
        if each.marker and not any(map(each.marker.evaluate, contexts)):
            continue
        if (required := canonicalize_name(each.name)) not in pins:
            yield f"{each.name}, which is not pinned"
        elif absent := each.extras - pins[required]:
            yield f"{each.name}[{','.join(sorted(absent))}], which is pinned without that extra"


if __name__ == "__main__":
    sys.exit(main())
