"""The parts of a run: one that fails takes no other one's figures with it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from toolkit.errors import describe

T = TypeVar("T")


def kept(what: str, measuring: Coroutine[Any, Any, T], errors: list[str]) -> T | None:
    """Return what is measured, or None after an error, which is noted: the figures before it took minutes."""
    try:
        return asyncio.run(measuring)
    except Exception as error:  # noqa: BLE001 -- whatever the drivers raise, the other figures stand
        errors.append(f"{what} could not be measured: {describe(error)}")
        return None
