"""The layout of a choreography: the forward path on top, left to right, and the compensation path below it.

Our own code, since no established library on PyPI places boxes of given sizes and labels without an external binary:
igraph places points, grandalf had its last release in 2023, graphlay is a beta of 2026.
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
