"""What a change does to a step and its compensation, in words."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from toolkit.checker.graph import GraphStep, Slot
from toolkit.compatibility.releases import Change


def changes_of(change: Change, place: str) -> str:
    """Return how a step differs between the releases; nothing where it does not."""
    old, new = change.old.steps.get(place), change.new.steps.get(place)
    if old is None or new is None:
        return "it is new" if new else "it is gone"
    return ", ".join(_differences(old, new))


def is_changed(change: Change, place: str) -> bool:
    """Whether a step, or its compensation, differs between the releases."""
    return change.old.steps.get(place) != change.new.steps.get(place)


def shown(slots: Iterable[Slot]) -> str:
    """Return the events of slots: AND between them, OR within."""
    return " and ".join(" | ".join(sorted(slot)) for slot in slots)


def _differences(old: GraphStep, new: GraphStep) -> Iterator[str]:
    if set(old.slots) != set(new.slots):
        yield f"it runs on {shown(new.slots)} instead of {shown(old.slots)}"
    if old.success != new.success:
        yield f"it emits {new.success} instead of {old.success}"
    if lost := [each for each in old.refusals if each not in new.refusals]:
        yield f"it does not refuse with {' | '.join(lost)} any more"
    if added := [each for each in new.refusals if each not in old.refusals]:
        yield f"it may refuse with {' | '.join(added)}"
    if old.undoing and new.undoing is None:
        yield f"{old.undoing.name}, its compensation, is gone"
    elif new.undoing and old.undoing is None:
        yield f"{new.undoing.name} is its compensation now"
    elif old.undoing and new.undoing:
        if set(old.undoing.slots) != set(new.undoing.slots):
            yield f"{new.undoing.name} runs on {shown(new.undoing.slots)} instead of {shown(old.undoing.slots)}"
        if old.undoing.event != new.undoing.event:
            yield f"{new.undoing.name} emits {new.undoing.event} instead of {old.undoing.event}"
    if old.has_deadline is not new.has_deadline:
        yield "it has a deadline now" if new.has_deadline else "it has no deadline any more"
