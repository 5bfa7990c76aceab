"""The shapes of a diagram: boxes for steps and events, lines for arrows, and how much room their texts take."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass

#: The width of a character in a monospaced font of 12 and of 11 pixels; slightly more than common fonts have.
CHARACTER, SMALL_CHARACTER = 7.4, 6.8
#: The height of their lines.
LINE, SMALL_LINE = 16, 14

#: Longer names are wrapped, at their capitals and underscores.
_LONGEST_NAME, _LONGEST_EVENT, _LONGEST_END = 18, 15, 13
_PADDING = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A step, a compensation, or an event from or to the outside; it is drawn as a box."""

    key: str
    name: str
    service: str = ""
    status: str = ""
    undoes: str | None = None
    is_event: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrow:
    """The events that one part sends to another."""

    source: str
    target: str
    labels: tuple[str, ...] = ()
    is_compensation: bool = False


@dataclass(slots=True)
class Box:
    """A part with its size and position."""

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
        """The y coordinate of its centre."""
        return self.y + self.height / 2

    @property
    def right(self) -> float:
        """The x coordinate of its right edge."""
        return self.x + self.width

    @property
    def bottom(self) -> float:
        """The y coordinate of its bottom edge."""
        return self.y + self.height


@dataclass(slots=True)
class Line:
    """An arrow with its path, its head, and the position of its label's last line."""

    arrow: Arrow
    lines: list[str]
    path: str = ""
    head: str = ""
    label_x: float = 0
    label_y: float = 0

    @property
    def label_width(self) -> float:
        """The label's width."""
        return max((measure(line) for line in self.lines), default=0) * SMALL_CHARACTER

    @property
    def label_height(self) -> float:
        """The label's height."""
        return len(self.lines) * SMALL_LINE


@dataclass(slots=True)
class Layout:
    """All boxes and lines, and the size of the picture."""

    boxes: list[Box]
    lines: list[Line]
    left: float = 0
    width: float = 0
    height: float = 0


def box_of(part: Part) -> Box:
    """Return a part's box, large enough for its texts."""
    lines = wrap(part.name, _LONGEST_END if part.is_event else _LONGEST_NAME)
    small = max(measure(part.service), measure(part.status)) * SMALL_CHARACTER
    width = max(small, *(measure(line) * CHARACTER for line in lines)) + 2 * _PADDING
    height = len(lines) * LINE + (bool(part.service) + bool(part.status)) * SMALL_LINE + 2 * _PADDING
    return Box(part, lines, width, height)


def line_of(arrow: Arrow) -> Line:
    """Return an arrow's line with its wrapped label."""
    return Line(arrow, [text for label in arrow.labels for text in wrap(label, _LONGEST_EVENT)])


def measure(text: str) -> int:
    """Return a text's width in columns of a monospaced font; wide characters take two."""
    return sum(2 if unicodedata.east_asian_width(character) in "WF" else 1 for character in text)


def wrap(name: str, longest: int) -> list[str]:
    """Return a name in lines of at most `longest` columns, wrapped before a word, or within a longer one."""
    lines = [""]
    for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^A-Z_\s.\-]+[_\s.\-]*|[_\s.\-]+", name) or [name]:
        for piece in (word[at : at + longest] for at in range(0, len(word), longest)):
            if lines[-1] and measure(lines[-1] + piece.rstrip()) > longest:
                lines.append("")
            lines[-1] += piece
    return [line.strip() for line in lines if line.strip()]
