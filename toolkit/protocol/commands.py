"""What a coordinator and the steps that it asks send each other: addressed commands, and replies to them.

A command is addressed to one step of one service; a reply names the step, and what became of it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from toolkit.protocol.fence import StepState


class Verb(StrEnum):
    """What a coordinator wants of a step."""

    ASK = "ask"
    """Run the step."""
    UNDO = "undo"
    """Run its compensation, or see to it that the step never takes effect."""


class Outcome(StrEnum):
    """What became of an asked step."""

    COMPLETED = "completed"
    FINAL = "final"
    """Completed, and it has no compensation: nothing can undo it."""
    REFUSED = "refused"
    UNDONE = "undone"
    """Compensated, or fenced before it had run."""


@dataclass(frozen=True, slots=True)
class Address:
    """The one step that a command is for."""

    coordinator: str
    verb: Verb
    step: str

    @property
    def routing_key(self) -> str:
        """The key of such a command; a broker can grant each coordinator only its own keys."""
        return f"{self.coordinator}.{self.verb.title()}.{self.step}"


@dataclass(frozen=True, slots=True)
class Reply:
    """The step that a command was for, and what became of it."""

    step: str
    outcome: Outcome


def outcome_of(state: StepState, *, is_refusal: bool, is_final: bool) -> Outcome:
    """Return what a step replies when it emits an event: a refusal or another, with its move to this state."""
    if state is StepState.COMPLETED:
        return Outcome.FINAL if is_final else Outcome.COMPLETED
    return Outcome.REFUSED if is_refusal else Outcome.UNDONE


_KEY = re.compile(r"([^.]+)\.(Ask|Undo)\.([^.]+)")


def address_in(routing_key: str) -> Address | None:
    """Return the address in a command's routing key; None where it is the key of another message."""
    if not (found := _KEY.fullmatch(routing_key)):
        return None
    return Address(found[1], Verb(found[2].lower()), found[3])
