"""The coordinates of boxes whose columns and rows are known, and the paths of the lines between them.

The first line between two neighbours is straight; all others run in channels between the rows, each on a track of its
own, so that no two texts overlap.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from toolkit.console.diagrams.shapes import Box, Layout, Line
from toolkit.console.diagrams.tracks import Channel, Run

_MARGIN = 12
#: The room for an arrow on each side of its label.
_ARROW = 14
#: The room between two columns without a label.
_NO_LABEL = 24
#: How far the head of an arrow reaches back from its tip.
_HEAD = 6


@dataclass(slots=True)
class Routing:
    """Sets the coordinates of boxes and lines, in place."""

    boxes: Mapping[str, Box]
    lines: list[Line]
    _straight: set[int] = field(init=False)
    _channels: dict[int, Channel] = field(default_factory=lambda: defaultdict(Channel))
    _ports: dict[tuple[int, str], float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Decide which lines are straight."""
        self._straight = _straight_lines(self.lines, self.boxes)

    def drawn(self) -> Layout:
        """Set all coordinates, those of the columns first: ports and tracks depend on them."""
        width = self._place_columns()
        bent = [line for line in self.lines if not self._is_straight(line)]
        self._set_ports(bent)
        for line in bent:
            run = Run(line, self._ports[id(line), "source"], self._ports[id(line), "target"])
            self._channels[self._row_above(line)].runs.append(run)
        for channel in self._channels.values():
            channel.set_tracks()
        height = self._place_rows()
        for line in self.lines:
            if self._is_straight(line):
                self._draw_straight(line)
        for row, channel in self._channels.items():
            for run in channel.runs:
                self._draw_bent(run, self._floor_of(row) + channel.offset(run))
        return _widened(Layout(list(self.boxes.values()), self.lines, width=width, height=height))

    def _ends(self, line: Line) -> tuple[Box, Box]:
        return self.boxes[line.arrow.source], self.boxes[line.arrow.target]

    def _is_straight(self, line: Line) -> bool:
        return id(line) in self._straight

    def _row_above(self, line: Line) -> int:
        """Return the row below which a bent line runs."""
        source, target = self._ends(line)
        return source.row if target.row >= source.row else source.row - 1

    def _place_columns(self) -> float:
        """Set the x coordinates of boxes, and return the width of all."""
        last = max((box.column for box in self.boxes.values()), default=0)
        x = float(_MARGIN)
        for column in range(last + 1):
            placed = [box for box in self.boxes.values() if box.column == column]
            width = max((box.width for box in placed), default=0)
            for box in placed:
                if not box.part.is_event:
                    box.width = width
                box.x = x + (width - box.width) / 2
            crossing = [line for line in self.lines if min(end.column for end in self._ends(line)) == column]
            labels = [line.label_width for line in crossing if self._is_straight(line)]
            x += width + max(labels, default=_NO_LABEL) + 2 * _ARROW
        return max((box.right for box in self.boxes.values()), default=0) + _MARGIN

    def _set_ports(self, bent: Sequence[Line]) -> None:
        """Give lines that leave or reach a box on one side different ports, on the half towards their other end."""
        sides: dict[tuple[str, str, int], list[tuple[float, Line, str]]] = defaultdict(list)
        for line in bent:
            source, target = self._ends(line)
            below = target.row >= source.row
            for here, other, name in ((source, target, "source"), (target, source, "target")):
                is_top = (name == "target") == below and source.row != target.row
                direction = (other.column > here.column) - (other.column < here.column)
                sides[here.part.key, "top" if is_top else "bottom", direction].append((other.x, line, name))
        for (key, _, direction), ends in sides.items():
            box = self.boxes[key]
            low, high = {-1: (0.06, 0.4), 0: (0.35, 0.65), 1: (0.6, 0.94)}[direction]
            for number, (_, line, name) in enumerate(sorted(ends, key=lambda each: each[0]), 1):
                share = low + (high - low) * number / (len(ends) + 1)
                self._ports[id(line), name] = box.x + box.width * share

    def _place_rows(self) -> float:
        """Set the y coordinates of boxes, and return the height of all."""
        last = max((box.row for box in self.boxes.values()), default=0)
        labels = [line.label_height for line in self.lines if self._is_straight(line) and self._ends(line)[0].row == 0]
        y = _MARGIN + max(0.0, max(labels, default=0) - 30)
        for row in range(last + 1):
            placed = [box for box in self.boxes.values() if box.row == row]
            height = max((box.height for box in placed), default=0)
            for box in placed:
                box.y = y + (height - box.height) / 2
            y += height + self._channels.get(row, Channel()).height
        below = self._channels[last].height if last in self._channels else 0
        return max((box.bottom for box in self.boxes.values()), default=0) + below + _MARGIN

    def _floor_of(self, row: int) -> float:
        """Return the bottom edge of a row's highest box."""
        return max(box.bottom for box in self.boxes.values() if box.row == row)

    def _draw_straight(self, line: Line) -> None:
        source, target = self._ends(line)
        rightwards = target.column > source.column
        x1, x2 = (source.right, target.x) if rightwards else (source.x, target.right)
        y = source.middle  # as the target's: a row's boxes have one middle
        line.path = f"M{x1:.1f} {y:.1f}H{x2 - _HEAD if rightwards else x2 + _HEAD:.1f}"
        line.head = _head(x2, y, "right" if rightwards else "left")
        line.label_x, line.label_y = (x1 + x2) / 2, y - 5

    def _draw_bent(self, run: Run, y: float) -> None:
        line = run.line
        source, target = self._ends(line)
        y1 = source.bottom if target.row >= source.row else source.y
        enters_above = target.row > source.row
        y2, tip = (target.y, target.y - _HEAD) if enters_above else (target.bottom, target.bottom + _HEAD)
        line.path = f"M{run.begin:.1f} {y1:.1f}V{y:.1f}H{run.end:.1f}V{tip:.1f}"
        line.head = _head(run.end, y2, "down" if enters_above else "up")
        line.label_x, line.label_y = (run.begin + run.end) / 2, y - 4


def _straight_lines(lines: Iterable[Line], boxes: Mapping[str, Box]) -> set[int]:
    """Return the ids of the lines that are straight: the first between two neighbours of one row."""
    found: dict[frozenset[str], int] = {}
    for line in lines:
        source, target = boxes[line.arrow.source], boxes[line.arrow.target]
        if source.row == target.row and abs(source.column - target.column) == 1:
            found.setdefault(frozenset((source.part.key, target.part.key)), id(line))
    return set(found.values())


def _widened(layout: Layout) -> Layout:
    """Widen the picture for labels that begin before the first box, or end behind the last."""
    layout.left = min((line.label_x - line.label_width / 2 - _MARGIN for line in layout.lines), default=0)
    layout.left = min(layout.left, 0)
    right = max((line.label_x + line.label_width / 2 + _MARGIN for line in layout.lines), default=0)
    layout.width = max(layout.width, right) - layout.left
    return layout


def _head(x: float, y: float, direction: str) -> str:
    """Return the points of the triangle whose tip is at these coordinates."""
    corners = {
        "right": ((-8, -4), (-8, 4)),
        "left": ((8, -4), (8, 4)),
        "down": ((-4, -8), (4, -8)),
        "up": ((-4, 8), (4, 8)),
    }[direction]
    points = [(x, y), *((x + dx, y + dy) for dx, dy in corners)]
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
