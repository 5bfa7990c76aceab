"""Directories at memory speed: a file that is synchronized on a disk takes longer than all the rest of a test."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

#: The file system in memory, where the machine has one.
_MEMORY = Path("/dev/shm")  # noqa: S108 -- directories in it are made by tempfile, for this user alone


@contextmanager
def memory_directory(prefix: str = "saga-") -> Iterator[Path]:
    """Yield a new directory, in memory where the machine allows that, and delete it."""
    with tempfile.TemporaryDirectory(prefix=prefix, dir=_MEMORY if _MEMORY.is_dir() else None) as directory:
        yield Path(directory)
