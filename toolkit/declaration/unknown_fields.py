"""Fields that a model does not have, at any depth: pydantic drops them, so a misspelt one would go unseen."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def unknown_fields(given: Any, read: BaseModel) -> list[str]:
    """Return the paths of what was given, by names or aliases, and that the model which was read from it lacks."""
    return list(_unknown(given, read.model_dump(mode="json"), read.model_dump(mode="json", by_alias=True), ""))


def _unknown(given: Any, kept: Any, aliased: Any, path: str) -> Iterator[str]:
    if isinstance(given, dict) and isinstance(kept, dict):
        known = {}
        for (name, value), (alias, other) in zip(kept.items(), aliased.items(), strict=True):
            known[name] = known[alias] = value, other
        for name, value in given.items():
            if name in known:
                yield from _unknown(value, *known[name], f"{path}{name}.")
            else:
                yield f"{path}{name}"
    elif isinstance(given, list) and isinstance(kept, list):
        for index, each in enumerate(zip(given, kept, aliased, strict=False)):
            yield from _unknown(*each, f"{path}{index}.")
