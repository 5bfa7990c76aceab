"""The layout of a choreography: the forward path on top, left to right, and the compensation path below it.

Our own, since no maintained library on PyPI puts a compensation below its step and keeps labels off boxes without an
external binary: igraph routes nothing, grandalf had no release since 2023, graphlay is a beta of 2026.
"""

from __future__ import annotations

from collections.abc import Sequence

from toolkit.console.diagrams.grid import set_grid
from toolkit.console.diagrams.routing import Routing
from toolkit.console.diagrams.shapes import Arrow, Layout, Part, box_of, line_of


def arrange(parts: Sequence[Part], arrows: Sequence[Arrow]) -> Layout:
    """Return the position of every box and the path of every arrow; arrows without a part at an end are left out."""
    boxes = {part.key: box_of(part) for part in parts}
    known = [arrow for arrow in arrows if arrow.source in boxes and arrow.target in boxes]
    set_grid(boxes, known)
    return Routing(boxes, [line_of(arrow) for arrow in known]).drawn()
