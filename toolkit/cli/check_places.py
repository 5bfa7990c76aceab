"""Where a finding of `saga check` is: the file and the line of a function's source code, or of its contract."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from toolkit.cli.check_sources import Source
from toolkit.cli.service_discovery import place_of_service

if TYPE_CHECKING:
    from toolkit.checker.findings import Finding
    from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True)
class Place:
    """A file, below the current directory if it lies there, and a line of it, from 1."""

    path: str
    line: int = 1


def place_of(finding: Finding, sources: Iterable[Source]) -> Place | None:
    """Return where a finding is: at its function, else at its service; None where no file holds it."""
    from toolkit.declaration.contract import Contract

    source = next((each for each in sources if each.name == finding.service), None)
    if source is None:
        return None
    if source.path is not None:
        return Place(_shown(source.path), _line_in(source.path, finding.service, finding.function))
    return None if isinstance(source.declared, Contract) else _in_code(source.declared, finding.function)


def _line_in(path: Path, service: str, function: str) -> int:
    """Return the line of a contract's function, of its service where it has none of this name, or the first one."""
    lines = path.read_text().splitlines()
    of_service = re.compile(rf'"service":\s*"{re.escape(service)}"')
    begin = next((number for number, line in enumerate(lines) if of_service.search(line)), 0)
    named = re.compile(rf'"name":\s*"{re.escape(function)}"')
    found = (number for number, line in enumerate(lines) if number >= begin and named.search(line))
    return next(found, begin) + 1


def _in_code(service: Service, function: str) -> Place | None:
    for handler in service.handlers:
        if handler.name == function:
            code = getattr(handler.function, "__code__", None)
            return Place(_shown(Path(code.co_filename)), code.co_firstlineno) if code else None
    module, _ = place_of_service(service) or ("", "")
    path = getattr(sys.modules.get(module), "__file__", None)
    return Place(_shown(Path(path))) if path else None


def _shown(path: Path) -> str:
    """Return a path as the forge has it: with slashes, and relative where it lies below the current directory."""
    full, here = path.absolute(), Path.cwd()
    return (full.relative_to(here) if full.is_relative_to(here) else full).as_posix()
