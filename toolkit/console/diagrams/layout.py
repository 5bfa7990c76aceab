"""Where the boxes and arrows of a choreography go: the way forward on top, left to right; the way back below it.

What undoes a step stands below that step, so that the way back reads from right to left. Arrows between neighbours are
straight; all others run in channels between the rows, each on a track of its own, so that nothing lies on anything.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

#: How wide a letter is, in a monospaced font of 12 and of 11 pixels; a little more than any of the usual ones has.
DEAD_LETTER, SMALL_DEAD_LETTER = 7.4, 6.8
#: How high their lines are.
LINE, SMALL_LINE = 16, 14

#: Longer names are broken, at their capitals and underscores.
_LONGEST_NAME, _LONGEST_EVENT, _LONGEST_END = 18, 15, 13
_PADDING = 10
_MARGIN = 12
#: The room for an arrow on each side of its label.
_ARROW = 14
_BETWEEN_ROWS = 14
_TRACK = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """What is drawn as a box: a step, a compensation, or an event from or to the outside."""

    key: str
    name: str
    service: str = ""
    told: str = ""
    undoes: str | None = None
    is_event: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """Events on their way from one part to another."""

    source: str
    target: str
    labels: tuple[str, ...] = ()
    is_back: bool = False


@dataclass(slots=True)
class Box:
    """A part, and where it is."""

    part: Part
    lines: list[str]
    width: float
    height: float
    column: int = 0
    row: int = 0
    x: float = 0
    y: float = 0

    @property
    def middle(self) -> float:
        """Where its middle is, from above."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """Where it ends."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """Where it ends below."""
        return self.y + self.height


@dataclass(slots=True)
class Line:
    """An arrow, the path that it takes, its head, and where the last line of its label stands."""

    arrow: Arrow
    lines: list[str]
    path: str = ""
    head: str = ""
    label_x: float = 0
    label_y: float = 0

    @property
    def label_width(self) -> float:
        """How wide the label is."""
        return max((measure(line) for line in self.lines), default=0) * SMALL_DEAD_LETTER

    @property
    def label_height(self) -> float:
        """How high the label is."""
        return len(self.lines) * SMALL_LINE


@dataclass(slots=True)
class Layout:
    """All boxes and lines, and how much room they take."""

    boxes: list[Box]
    lines: list[Line]
    left: float = 0
    width: float = 0
    height: float = 0


def measure(text: str) -> int:
    """Return how many letters wide a text is; some letters take two."""
    return sum(2 if unicodedata.east_asian_width(dead_letter) in "WF" else 1 for dead_letter in text)


def broken(name: str, longest: int) -> list[str]:
    """Return a name in lines of so many letters at most, broken where a word begins, and else wherever it has to be."""
    lines = [""]
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z_\s.\-]+[_\s.\-]*|[_\s.\-]+", name) or [name]:
        for piece in (word[at : at + longest] for at in range(0, len(word), longest)):
            if lines[-1] and measure(lines[-1] + piece.rstrip()) > longest:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]


def arrange(parts: Sequence[Part], arrows: Sequence[Arrow]) -> Layout:
    """Return where everything goes."""
    boxes = {part.key: _box(part) for part in parts}
    arrows = [arrow for arrow in arrows if arrow.source in boxes and arrow.target in boxes]
    compensation_events = _set_columns(boxes, arrows)
    _set_rows(list(boxes.values()), compensation_events)
    lines = [Line(arrow, _label_lines(arrow)) for arrow in arrows]
    return _Plan(boxes, lines, _straight_ones(lines, boxes)).drawn()


def _box(part: Part) -> Box:
    lines = broken(part.name, _LONGEST_END if part.is_event else _LONGEST_NAME)
    small = max(measure(part.service), measure(part.told)) * SMALL_DEAD_LETTER
    width = max(small, *(measure(line) * DEAD_LETTER for line in lines)) + 2 * _PADDING
    height = len(lines) * LINE + (bool(part.service) + bool(part.told)) * SMALL_LINE + 2 * _PADDING
    return Box(part, lines, width, height)


def _straight_ones(lines: Iterable[Line], boxes: Mapping[str, Box]) -> set[int]:
    """Return which lines go straight: the first between two neighbours."""
    found: dict[frozenset[str], int] = {}
    for line in lines:
        source, target = boxes[line.arrow.source], boxes[line.arrow.target]
        if source.row == target.row and abs(source.column - target.column) == 1:
            found.setdefault(frozenset((source.part.key, target.part.key)), id(line))
    return set(found.values())


def _label_lines(arrow: Arrow) -> list[str]:
    return [line for label in arrow.labels for line in broken(label, _LONGEST_EVENT)]


def _set_columns(boxes: Mapping[str, Box], arrows: Iterable[Arrow]) -> set[str]:
    """Let a step stand behind those that lead to it, what undoes it below it, what else is on the way back before.

    Returns the keys of what is on the way back.
    """
    forward: dict[str, list[str]] = defaultdict(list)
    back: dict[str, list[str]] = defaultdict(list)
    for arrow in arrows:
        (back if arrow.is_back else forward)[arrow.target].append(arrow.source)
    columns: dict[str, int] = {}

    def depth(key: str, seen: frozenset[str]) -> int:
        if key not in columns:
            before = [depth(each, seen | {key}) for each in forward[key] if each not in seen]
            columns[key] = max(before, default=-1) + 1
        return columns[key]

    compensation_events = {key for key, box in boxes.items() if _is_on_the_way_back(box, forward[key], back[key])}
    for key in boxes:
        if key not in compensation_events:
            depth(key, frozenset({key}))
    for key in boxes:
        undone = boxes[key].part.undoes
        if key in compensation_events and undone in columns and undone not in compensation_events:
            columns[key] = columns[undone]
    waiting = [key for key in boxes if key in compensation_events and key not in columns]
    for _ in range(len(waiting) + 1):
        for key in [each for each in waiting if each not in columns]:
            sources = [columns[each] for each in (*back[key], *forward[key]) if each in columns]
            if sources:
                columns[key] = max(min(sources) - 1, 0)
    for key, box in boxes.items():
        box.column = columns.get(key, 0)
    return compensation_events


def _is_on_the_way_back(box: Box, forward: Sequence[str], back: Sequence[str]) -> bool:
    return box.part.undoes is not None or (bool(back) and not forward)


def _set_rows(boxes: Iterable[Box], compensation_events: set[str]) -> None:
    """Let no two boxes of a column stand in one row; the way back begins below all of the way forward."""
    first = 0
    for is_back in (False, True):
        taken: Counter[int] = Counter()
        for box in boxes:
            if (box.part.key in compensation_events) is is_back:
                box.row = first + taken[box.column]
                taken[box.column] += 1
        first = max(taken.values(), default=0)


@dataclass(slots=True)
class _Run:
    """The part of a line that runs along a channel, between two places and as long as its label."""

    line: Line
    begin: float
    end: float
    track: int = 0

    @property
    def span(self) -> tuple[float, float]:
        """From where to where the channel is taken."""
        middle, half = (self.begin + self.end) / 2, self.line.label_width / 2
        return min(self.begin, self.end, middle - half), max(self.begin, self.end, middle + half)


@dataclass(slots=True)
class _Plan:
    """A layout in the making: columns and rows are known, places are not."""

    boxes: Mapping[str, Box]
    lines: list[Line]
    straight: set[int]
    _runs: dict[int, list[_Run]] = field(default_factory=lambda: defaultdict(list))
    _ports: dict[tuple[int, str], tuple[float, float]] = field(default_factory=dict)

    def drawn(self) -> Layout:
        """Set all places, the columns first, since the ports and tracks follow from them."""
        width = self._place_columns()
        bent = [line for line in self.lines if not self._is_straight(line)]
        self._set_ports(bent)
        for line in bent:
            begin, end = self._ports[id(line), "source"][0], self._ports[id(line), "target"][0]
            self._runs[self._channel(line)].append(_Run(line, begin, end))
        for runs in self._runs.values():
            _set_tracks(runs)
        height = self._place_rows()
        for line in self.lines:
            if self._is_straight(line):
                self._draw_straight(line)
        for channel, runs in self._runs.items():
            for run in runs:
                self._draw_bent(run, channel)
        return self._within(Layout(list(self.boxes.values()), self.lines, width=width, height=height))

    def _ends(self, line: Line) -> tuple[Box, Box]:
        return self.boxes[line.arrow.source], self.boxes[line.arrow.target]

    def _is_straight(self, line: Line) -> bool:
        return id(line) in self.straight

    def _channel(self, line: Line) -> int:
        """Return below which row the line runs."""
        source, target = self._ends(line)
        return source.row if target.row >= source.row else source.row - 1

    def _place_columns(self) -> float:
        last = max((box.column for box in self.boxes.values()), default=0)
        x = float(_MARGIN)
        for column in range(last + 1):
            ours = [box for box in self.boxes.values() if box.column == column]
            width = max((box.width for box in ours), default=0)
            for box in ours:
                if not box.part.is_event:
                    box.width = width
                box.x = x + (width - box.width) / 2
            crossing = [line for line in self.lines if min(end.column for end in self._ends(line)) == column]
            labels = [line.label_width for line in crossing if self._is_straight(line)]
            x += width + max(labels, default=24) + 2 * _ARROW
        return max((box.right for box in self.boxes.values()), default=0) + _MARGIN

    def _set_ports(self, bent: Sequence[Line]) -> None:
        """Let lines that leave or reach a box on one side each have a place of its own, on the half that they go to."""
        sides: dict[tuple[str, str, int], list[tuple[float, Line, str]]] = defaultdict(list)
        for line in bent:
            source, target = self._ends(line)
            below = target.row >= source.row
            for here, other, name in ((source, target, "source"), (target, source, "target")):
                is_top = (name == "target") == below and source.row != target.row
                way = (other.column > here.column) - (other.column < here.column)
                sides[here.part.key, "top" if is_top else "bottom", way].append((other.x, line, name))
        for (key, _, way), ends in sides.items():
            box = self.boxes[key]
            low, high = {-1: (0.06, 0.4), 0: (0.35, 0.65), 1: (0.6, 0.94)}[way]
            for number, (_, line, name) in enumerate(sorted(ends, key=lambda each: each[0]), 1):
                share = low + (high - low) * number / (len(ends) + 1)
                self._ports[id(line), name] = (box.x + box.width * share, 0)

    def _place_rows(self) -> float:
        last = max((box.row for box in self.boxes.values()), default=0)
        heads = [line.label_height for line in self.lines if self._is_straight(line) and self._ends(line)[0].row == 0]
        y = _MARGIN + max(0.0, max(heads, default=0) - 30)
        for row in range(last + 1):
            ours = [box for box in self.boxes.values() if box.row == row]
            height = max((box.height for box in ours), default=0)
            for box in ours:
                box.y = y + (height - box.height) / 2
            y += height + self._channel_height(row)
        return max((box.bottom for box in self.boxes.values()), default=0) + self._channel_room(last) + _MARGIN

    def _tracks(self, channel: int) -> list[float]:
        """Return how high each track of a channel is: as high as the highest of its labels."""
        runs = self._runs.get(channel, [])
        count = max((run.track for run in runs), default=-1) + 1
        heights = [[run.line.label_height for run in runs if run.track == track] for track in range(count)]
        return [max(each) + _TRACK for each in heights]

    def _channel_room(self, channel: int) -> float:
        """Return what the lines below the last row take."""
        return self._channel_height(channel) if self._runs.get(channel) else 0

    def _channel_height(self, channel: int) -> float:
        return sum(self._tracks(channel)) + 2 * _BETWEEN_ROWS

    def _floor_of(self, row: int) -> float:
        """Return where the highest of a row's boxes ends."""
        return max(box.bottom for box in self.boxes.values() if box.row == row)

    def _draw_straight(self, line: Line) -> None:
        source, target = self._ends(line)
        rightwards = target.column > source.column
        x1, x2 = (source.right, target.x) if rightwards else (source.x, target.right)
        y = source.middle  # as the target's: a row's boxes have one middle
        line.path = f"M{x1:.1f} {y:.1f}H{x2 - 6 if rightwards else x2 + 6:.1f}"
        line.head = _head(x2, y, "right" if rightwards else "left")
        line.label_x, line.label_y = (x1 + x2) / 2, y - 5

    def _draw_bent(self, run: _Run, channel: int) -> None:
        line = run.line
        source, target = self._ends(line)
        tracks = self._tracks(channel)
        y = self._floor_of(channel) + _BETWEEN_ROWS + sum(tracks[: run.track + 1]) - _TRACK / 2
        leaves_below = target.row >= source.row
        y1 = source.bottom if leaves_below else source.y
        enters_above = target.row > source.row
        y2, tip = (target.y, target.y - 6) if enters_above else (target.bottom, target.bottom + 6)
        line.path = f"M{run.begin:.1f} {y1:.1f}V{y:.1f}H{run.end:.1f}V{tip:.1f}"
        line.head = _head(run.end, y2, "down" if enters_above else "up")
        line.label_x, line.label_y = (run.begin + run.end) / 2, y - 4

    def _within(self, layout: Layout) -> Layout:
        """Widen the page for labels that begin before the first box, or end behind the last."""
        layout.left = min((line.label_x - line.label_width / 2 - _MARGIN for line in layout.lines), default=0)
        layout.left = min(layout.left, 0)
        right = max((line.label_x + line.label_width / 2 + _MARGIN for line in layout.lines), default=0)
        layout.width = max(layout.width, right) - layout.left
        return layout


def _set_tracks(runs: list[_Run]) -> None:
    """Give runs that overlap different tracks, the shortest the first."""
    ends: list[list[tuple[float, float]]] = []
    for run in sorted(runs, key=lambda each: (each.span[1] - each.span[0], each.span[0])):
        begin, end = run.span
        free = (n for n, taken in enumerate(ends) if all(end + 8 < low or high + 8 < begin for low, high in taken))
        run.track = next(free, len(ends))
        if run.track == len(ends):
            ends.append([])
        ends[run.track].append((begin, end))


def _head(x: float, y: float, way: str) -> str:
    """Return the triangle whose tip is here."""
    corners = {
        "right": ((-8, -4), (-8, 4)),
        "left": ((8, -4), (8, 4)),
        "down": ((-4, -8), (4, -8)),
        "up": ((-4, 8), (4, 8)),
    }[way]
    points = [(x, y), *((x + dx, y + dy) for dx, dy in corners)]
    return " ".join(f"{a:.1f},{b:.1f}" for a, b in points)
