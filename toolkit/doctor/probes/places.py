"""The file system of a path."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

#: Linux's list of mount points.
_MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\(\d{3})")


def filesystem_of(path: Path) -> str | None:
    """Return the type of a path's file system; None if the system has no list of mounts."""
    try:
        mounts = dict(_mounts(_MOUNTS.read_text()))
    except OSError:
        return None
    place = path.resolve()
    return next((mounts[each] for each in (place, *place.parents) if each in mounts), None)


def _mounts(text: str) -> Iterator[tuple[Path, str]]:
    """Yield each mount point with its type; of several at one point the last one counts."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        point = _OCTAL.sub(lambda match: chr(int(match[1], 8)), before.split()[4])
        yield Path(point), after.split()[0]
