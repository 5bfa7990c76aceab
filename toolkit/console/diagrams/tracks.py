"""The channels below the rows, in which bent lines run: each on a track on which it meets no other."""

from __future__ import annotations

from dataclasses import dataclass, field

from toolkit.console.diagrams.shapes import Line

_BETWEEN_ROWS = 14
_TRACK = 10
#: The least distance between two runs on one track.
_GAP = 8


@dataclass(slots=True)
class Run:
    """The horizontal part of a bent line; it is at least as long as the line's label."""

    line: Line
    begin: float
    end: float
    track: int = 0

    @property
    def span(self) -> tuple[float, float]:
        """The x coordinates between which the track is taken."""
        middle, half = (self.begin + self.end) / 2, self.line.label_width / 2
        return min(self.begin, self.end, middle - half), max(self.begin, self.end, middle + half)


@dataclass(slots=True)
class Channel:
    """The room below one row."""

    runs: list[Run] = field(default_factory=list)

    @property
    def height(self) -> float:
        """Its height, also where no line runs in it."""
        return sum(self._track_heights()) + 2 * _BETWEEN_ROWS

    def set_tracks(self) -> None:
        """Give runs that overlap different tracks, the shortest run the first track."""
        taken: list[list[tuple[float, float]]] = []
        for run in sorted(self.runs, key=lambda each: (each.span[1] - each.span[0], each.span[0])):
            begin, end = run.span
            free = (
                number
                for number, spans in enumerate(taken)
                if all(end + _GAP < low or high + _GAP < begin for low, high in spans)
            )
            run.track = next(free, len(taken))
            if run.track == len(taken):
                taken.append([])
            taken[run.track].append((begin, end))

    def offset(self, run: Run) -> float:
        """Return how far below the channel's upper edge a run is."""
        return _BETWEEN_ROWS + sum(self._track_heights()[: run.track + 1]) - _TRACK / 2

    def _track_heights(self) -> list[float]:
        """Return the height of each track: that of its highest label, and some room."""
        count = max((run.track for run in self.runs), default=-1) + 1
        heights = [[run.line.label_height for run in self.runs if run.track == track] for track in range(count)]
        return [max(each) + _TRACK for each in heights]
