"""What a comparison finds: a fault of a change, or a note on it, with the declaration to change."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from toolkit.checker.findings import Finding

#: Until when the declarations of the old release are needed.
DRAINED = "until the sagas in flight have ended"


class Level(StrEnum):
    """Whether a finding makes the change incompatible."""

    ERROR = "error"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class ChangeFinding(Finding):
    """A finding of a change; `function` is the step, the compensation, or the event to change.

    `event`: the event that it is about, if any.
    """

    level: Level = Level.ERROR
    event: str | None = None
