"""A saga's messages in causal order: a line for each service, an arrow for each event."""

from __future__ import annotations

from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from toolkit.console.diagrams.shapes import SMALL_CHARACTER, measure
from toolkit.console.templating import clock, look
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.events import SagaEnded, SagaState
from toolkit.protocol.log_entry import LogEntry

_OUTSIDE = "outside"
_TOP, _ROW, _MARGIN = 40, 30, 16
#: More entries are no readable picture; the timeline has them all.
MOST = 120


@dataclass(frozen=True, slots=True)
class Arrow:
    """An event from one service to another, or a note, which has no arrow."""

    x1: float
    x2: float
    y: float
    label: str
    at: str
    classes: str
    label_x: float
    is_note: bool = False

    @property
    def head(self) -> str:
        """The points of the triangle at the arrow's end."""
        back = -8 if self.x2 > self.x1 else 8
        return f"{self.x2:.1f},{self.y:.1f} {self.x2 + back:.1f},{self.y - 4:.1f} {self.x2 + back:.1f},{self.y + 4:.1f}"


@dataclass(slots=True)
class Sequence:
    """All lines and arrows, and the size of the picture."""

    lanes: list[tuple[str, float]] = field(default_factory=list)
    arrows: list[Arrow] = field(default_factory=list)
    width: float = 0
    height: float = 0
    left_out: int = 0


def sequence_of(entries: Many[LogEntry], choreography: Choreography, services: Many[str]) -> Sequence:
    """Return the picture of these entries."""
    shown = entries[:MOST]
    told = [each for each in shown if (each.emitted_type or each.position is None) and not is_closing(each)]
    involved = {entry.service for entry in entries}
    known = [node.service for saga in choreography.sagas for node in choreography.forward(saga)]
    lanes = [_OUTSIDE, *dict.fromkeys(name for name in [*known, *services] if name in involved)]
    labels = [str(entry.emitted_type or "") for entry in told] + lanes
    step = max((measure(label) * SMALL_CHARACTER for label in labels), default=0) + 36
    at = {name: _MARGIN + step * (number + 0.5) for number, name in enumerate(lanes)}
    drawing = Sequence([(name, at[name]) for name in lanes], left_out=len(entries) - len(shown))
    y = float(_TOP + _ROW)
    start = next((entry for entry in shown if entry.event_type), None)
    if start:
        event = str(start.event_type)
        drawing.arrows.append(_arrow(at[_OUTSIDE], at[start.service], y, event, start, "taken good"))
        y += _ROW
    for entry in told:
        here = at[entry.service]
        if entry.position is None:
            drawing.arrows.append(_note(here, y, entry))
            y += _ROW
            continue
        is_back = entry.saga_state in (SagaState.COMPENSATING, SagaState.FAILED)
        classes = "taken undone back" if is_back else "taken good"
        for name in _consumers(entry, choreography, at):
            drawing.arrows.append(_arrow(here, at[name], y, str(entry.emitted_type), entry, classes))
            y += _ROW
    drawing.width, drawing.height = 2 * _MARGIN + step * len(lanes), y
    return drawing


def is_closing(entry: LogEntry) -> bool:
    """Whether an entry only records that the saga has ended."""
    return str(entry.event_type) == SagaEnded.__name__


def _consumers(entry: LogEntry, choreography: Choreography, at: dict[str, float]) -> list[str]:
    saga = choreography.saga(entry.saga_type)
    nodes = choreography.listeners(str(entry.emitted_type), saga) if saga else []
    consumed = list(dict.fromkeys(node.service for node in nodes if node.service in at))
    return consumed or [_OUTSIDE]


def _arrow(x1: float, x2: float, y: float, label: str, entry: LogEntry, classes: str) -> Arrow:
    is_own = x1 == x2
    end = x2 + 28 if is_own else x2
    return Arrow(x1, end, y, label, clock(entry.at), classes, (x1 + end) / 2)


def _note(x: float, y: float, entry: LogEntry) -> Arrow:
    sign, tone, word = look(entry.to_state)
    attempt = f" {entry.attempt}" if entry.to_state == "retrying" else ""
    return Arrow(x, x, y, f"{sign} {word}{attempt}", clock(entry.at), f"taken {tone}", x, is_note=True)
