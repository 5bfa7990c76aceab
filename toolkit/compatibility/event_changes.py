"""What a change does to one event, in words: its version, its owner, and its fields."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.compatibility.readings import faults_of
from toolkit.compatibility.schemas import differences, fields_of
from toolkit.declaration.contract import EventContract


def event_changes(old: EventContract, new: EventContract) -> tuple[str, ...]:
    """Return how an event differs: fields added, dropped, narrowed or widened; nothing where its messages are alike."""
    return tuple(_changes(old, new))


def _changes(old: EventContract, new: EventContract) -> Iterator[str]:
    if old.version != new.version:
        is_read = not faults_of(old, new)
        yield f"version {old.version} → {new.version}{', by an upcaster' if is_read else ''}"
    if old.owner != new.owner:
        yield f"owner {old.owner} → {new.owner}"
    before, after = fields_of(old.json_schema), fields_of(new.json_schema)
    yield from (f"adds {path}" for path in sorted(after - before))
    yield from (f"drops {path}" for path in sorted(before - after))
    narrowed = {each.path for each in differences(old.json_schema, new.json_schema)} & before
    widened = {each.path for each in differences(new.json_schema, old.json_schema)} & after
    both = before & after
    yield from (f"changes {path}" for path in sorted(narrowed & widened & both))
    yield from (f"narrows {path}" for path in sorted((narrowed - widened) & both))
    yield from (f"widens {path}" for path in sorted((widened - narrowed) & both))
