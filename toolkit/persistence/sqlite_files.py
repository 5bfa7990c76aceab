"""SQLite's files: created for their owner alone, since they hold whole events; files that others may read are found."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.engine import URL

from toolkit.errors import SettingsError

#: Suffixes of the files beside a database; SQLite gives them the database's mode.
_BESIDE = ("", "-wal", "-shm", "-journal")
_OWNERS, _OF_OTHERS = 0o600, 0o077


def make_room_for(url: URL) -> None:
    """Create the directory of an SQLite file, for its owner alone.

    Raises:
        SettingsError: the directory can't be created.
    """
    place = Path(url.database or "").parent
    try:
        for each in reversed([place, *place.parents]):
            if not each.exists():
                each.mkdir(mode=0o700, exist_ok=True)
        place.mkdir(exist_ok=True)
    except OSError as error:
        raise SettingsError(
            f"can't create a database in {place}: {error.strerror}; name another directory, e.g. in SAGA_DATA_DIR"
        ) from error


def make_private(path: str | None) -> None:
    """Create a database's empty file where it is missing: SQLite would create one that others may read.

    If that fails, SQLite reports the error when it connects.
    """
    try:
        os.close(os.open(path or "", os.O_CREAT | os.O_EXCL | os.O_WRONLY, _OWNERS))
    except OSError:
        return


def readable_by_others(path: str | None) -> Iterator[str]:
    """Yield the files of a database that others than their owner may read or write."""
    for each in (f"{path}{suffix}" for suffix in _BESIDE):
        try:
            mode = stat.S_IMODE(os.stat(each).st_mode)
        except OSError:  # missing
            continue
        if mode & _OF_OTHERS:
            yield each
