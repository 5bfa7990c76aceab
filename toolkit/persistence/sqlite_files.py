"""SQLite's files: made for their owner alone, since they hold whole events; one that others may read is found."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL

from toolkit.errors import SettingsError

#: What SQLite writes beside a database; it gives these the database's own mode.
_BESIDE = ("", "-wal", "-shm", "-journal")
_OWNERS, _OF_OTHERS = 0o600, 0o077


def make_room_for(url: URL) -> None:
    """Make the directory that an SQLite file shall lie in, for its owner alone.

    Raises:
        SettingsError: it can't be made, or nothing can be written there.
    """
    place = Path(url.database or "").parent
    try:
        for each in reversed([place, *place.parents]):
            if not each.exists():
                each.mkdir(mode=0o700, exist_ok=True)
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"no database can lie in {place}: {error.strerror}; name another directory, in SAGA_DATA_DIR say"
        ) from error


def make_private(path: str | None) -> None:
    """Make a database's empty file, unless it is there: SQLite itself would make one that others may read.

    What keeps it from being made is left to SQLite, which says so at its connection.
    """
    try:
        os.close(os.open(path or "", os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWNERS))
    except OSError:
        return


def readable_by_others(path: str | None) -> Iterator[str]:
    """Yield those of a database's files that others than their owner may read or write."""
    for each in (f"{path}{suffix}" for suffix in _BESIDE):
        try:
            mode = stat.S_IMODE(os.stat(each).st_mode)
        except OSError:  # it is not there
            continue
        if mode & _OF_OTHERS:
            yield each
