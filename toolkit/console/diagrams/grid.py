"""The column and the row of each box of a choreography.

A step's column is behind those of the steps that lead to it; its compensation is below it, so that the compensation
path reads from right to left.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence

from toolkit.console.diagrams.shapes import Arrow, Box

_Sources = Mapping[str, Sequence[str]]


def set_grid(boxes: Mapping[str, Box], arrows: Iterable[Arrow]) -> None:
    """Set each box's column and row."""
    forward: dict[str, list[str]] = defaultdict(list)
    back: dict[str, list[str]] = defaultdict(list)
    for arrow in arrows:
        (back if arrow.is_compensation else forward)[arrow.target].append(arrow.source)
    compensating = {key for key, box in boxes.items() if _is_compensating(box, forward[key], back[key])}
    columns = _forward_columns([key for key in boxes if key not in compensating], forward)
    _add_compensations(columns, boxes, compensating, forward, back)
    for key, box in boxes.items():
        box.column = columns.get(key, 0)
    _set_rows(boxes.values(), compensating)


def _is_compensating(box: Box, forward: Sequence[str], back: Sequence[str]) -> bool:
    return box.part.undoes is not None or (bool(back) and not forward)


def _forward_columns(keys: Sequence[str], sources: _Sources) -> dict[str, int]:
    """Return the columns of the forward path: one more than the longest way from a start, circles left out."""
    columns: dict[str, int] = {}

    def depth(key: str, seen: frozenset[str]) -> int:
        if key not in columns:
            before = [depth(each, seen | {key}) for each in sources[key] if each not in seen]
            columns[key] = max(before, default=-1) + 1
        return columns[key]

    for key in keys:
        depth(key, frozenset({key}))
    return columns


def _add_compensations(
    columns: dict[str, int], boxes: Mapping[str, Box], compensating: set[str], forward: _Sources, back: _Sources
) -> None:
    """Add the columns of the compensation path: the undone step's, else one before the first source's."""
    for key in boxes:
        undone = boxes[key].part.undoes
        if key in compensating and undone in columns and undone not in compensating:
            columns[key] = columns[undone]
    waiting = [key for key in boxes if key in compensating and key not in columns]
    for _ in range(len(waiting) + 1):
        for key in [each for each in waiting if each not in columns]:
            sources = [columns[each] for each in (*back[key], *forward[key]) if each in columns]
            if sources:
                columns[key] = max(min(sources) - 1, 0)


def _set_rows(boxes: Iterable[Box], compensating: set[str]) -> None:
    """Give the boxes of a column different rows; the compensation path begins below the whole forward path."""
    first = 0
    for is_compensation in (False, True):
        taken: Counter[int] = Counter()
        for box in boxes:
            if (box.part.key in compensating) is is_compensation:
                box.row = first + taken[box.column]
                taken[box.column] += 1
        first = max(taken.values(), default=0)
