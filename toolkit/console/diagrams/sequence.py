"""A saga's messages in causal order: a line for each service, an arrow for each event."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Sequence as Many
from dataclasses import dataclass, field

from toolkit.console.diagrams.shapes import SMALL_CHARACTER, measure
from toolkit.console.saga_timeline import is_closing, is_compensating
from toolkit.console.templating import clock, look
from toolkit.declaration.choreography import Choreography
from toolkit.protocol.log_entry import LogEntry

_OUTSIDE = "outside"
_TOP, _ROW, _MARGIN = 40, 30, 16
#: The room between two lanes, beside the longest label; and the length of an arrow to the own lane.
_GAP, _OWN = 36, 28
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
    """Return the sequence of these entries: emitted events as arrows, notes as texts."""
    drawn = entries[:MOST]
    shown = [each for each in drawn if (each.emitted_type or each.position is None) and not is_closing(each)]
    lanes = _lanes(entries, choreography, services)
    labels = [str(entry.emitted_type or "") for entry in shown] + lanes
    step = max((measure(label) * SMALL_CHARACTER for label in labels), default=0) + _GAP
    x_of = {name: _MARGIN + step * (number + 0.5) for number, name in enumerate(lanes)}
    drawing = Sequence([(name, x_of[name]) for name in lanes], left_out=len(entries) - len(drawn))
    arrows = _Arrows(x_of, choreography)
    drawing.arrows += arrows.start([entry for entry in drawn if entry.event_type])
    for entry in shown:
        drawing.arrows += arrows.of(entry)
    drawing.width, drawing.height = 2 * _MARGIN + step * len(lanes), arrows.y
    return drawing


def _lanes(entries: Many[LogEntry], choreography: Choreography, services: Many[str]) -> list[str]:
    """Return the involved services, those of the forward path first, in its order."""
    involved = {entry.service for entry in entries}
    forward = [node.service for saga in choreography.sagas for node in choreography.forward(saga)]
    return [_OUTSIDE, *dict.fromkeys(name for name in [*forward, *services] if name in involved)]


class _Arrows:
    """Makes arrows one below the other; `y` is the next one's coordinate."""

    def __init__(self, x_of: Mapping[str, float], choreography: Choreography) -> None:
        self.y = float(_TOP + _ROW)
        self._x_of = x_of
        self._choreography = choreography

    def start(self, entries: Many[LogEntry]) -> Iterator[Arrow]:
        """Yield the arrows of the starting event, from the outside to each service that took it."""
        first: dict[str, LogEntry] = {}
        for entry in entries:
            if entry.event_id == entries[0].event_id:
                first.setdefault(entry.service, entry)
        for entry in first.values():
            yield self._arrow(_OUTSIDE, entry.service, str(entry.event_type), entry, "taken good")

    def of(self, entry: LogEntry) -> Iterator[Arrow]:
        """Yield an arrow for each consumer of the entry's event, or its note."""
        if entry.position is None:
            yield self._note(entry)
            return
        classes = "taken undone back" if is_compensating(entry) else "taken good"
        for name in self._consumers(entry):
            yield self._arrow(entry.service, name, str(entry.emitted_type), entry, classes)

    def _consumers(self, entry: LogEntry) -> list[str]:
        saga = self._choreography.saga(entry.saga_type)
        nodes = self._choreography.listeners(str(entry.emitted_type), saga) if saga else []
        consumers = list(dict.fromkeys(node.service for node in nodes if node.service in self._x_of))
        return consumers or [_OUTSIDE]

    def _arrow(self, source: str, target: str, label: str, entry: LogEntry, classes: str) -> Arrow:
        x1, x2 = self._x_of[source], self._x_of[target]
        end = x2 + _OWN if x1 == x2 else x2
        return Arrow(x1, end, self._next_y(), label, clock(entry.at), classes, (x1 + end) / 2)

    def _note(self, entry: LogEntry) -> Arrow:
        sign, tone, word = look(entry.to_state)
        attempt = f" {entry.attempt}" if entry.to_state == "retrying" else ""
        x = self._x_of[entry.service]
        label = f"{sign} {word}{attempt}"
        return Arrow(x, x, self._next_y(), label, clock(entry.at), f"taken {tone}", x, is_note=True)

    def _next_y(self) -> float:
        y, self.y = self.y, self.y + _ROW
        return y
