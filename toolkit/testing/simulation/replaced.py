"""Names of modules that have another value for a while."""

from __future__ import annotations

from threading import Lock
from types import ModuleType
from typing import Any, Self


class Replaced:
    """A block in which names of modules have these values; blocks of one object may overlap in any order."""

    def __init__(self, *values: tuple[ModuleType, str, Any]) -> None:
        self._values = values
        self._kept: list[Any] = []
        self._open = 0
        self._lock = Lock()

    def __enter__(self) -> Self:
        with self._lock:
            if not self._open:
                self._kept = [getattr(module, name) for module, name, _ in self._values]
                for module, name, value in self._values:
                    setattr(module, name, value)
            self._open += 1
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._open -= 1
            if not self._open:
                for (module, name, _), value in zip(self._values, self._kept, strict=True):
                    setattr(module, name, value)
