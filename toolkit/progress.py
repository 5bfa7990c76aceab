"""How far a saga has come: in a sentence for people, and in all its steps and compensations, with what is to come.

It is read from the services' logs and contracts alone. Whoever can't be asked is unknown, never "not done".
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

from toolkit.graph import Choreography
from toolkit.hearsay import completed
from toolkit.sentence import Facts, sentence
from toolkit.standing import NodeProgress, SeenEvent, Status, View, nodes_of
from toolkit.story import Story

__all__ = ["NodeProgress", "Progress", "SeenEvent", "Status", "View", "progress"]


@dataclass(frozen=True, slots=True)
class Progress:
    """A saga in a sentence, and all of its nodes: the way forward first, then the way back."""

    sentence: str
    nodes: list[NodeProgress]

    @property
    def remaining(self) -> list[NodeProgress]:
        """What is not over, in the order in which it comes if nobody refuses; what is unknown included."""
        return [node for node in self.nodes if node.status.is_to_come or node.status is Status.UNKNOWN]

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return {"sentence": self.sentence, "nodes": [asdict(node) for node in self.nodes]}


def progress(
    story: Story, choreography: Choreography, views: Mapping[str, View], *, now: datetime | None = None
) -> Progress:
    """Return how far the saga has come; `choreography` is that of all services whose contracts are known.

    An id under which there are sagas of several types is told of type by type.
    """
    now = now or datetime.now(UTC)
    parts = [_of_one_type(story, saga_type, choreography, views) for saga_type in _types(story)]
    nodes = [node for _, found in parts for node in found] + _strangers(story, choreography)
    letters = list(_stray_letters(views, nodes))
    if not parts:
        return Progress(sentence(Facts(story, [], letters, now)), nodes)
    lines = [sentence(Facts(part, found, letters, now)) for part, found in parts]
    if len(parts) > 1:
        lines = [f"{part.saga_type}: {line}" for (part, _), line in zip(parts, lines, strict=True)]
    return Progress(" ".join(lines), nodes)


def _types(story: Story) -> list[str]:
    return list(dict.fromkeys(str(entry["saga_type"]) for entry in story.entries))


def _of_one_type(
    story: Story, saga_type: str, choreography: Choreography, views: Mapping[str, View]
) -> tuple[Story, list[NodeProgress]]:
    part = replace(story, entries=[entry for entry in story.entries if entry["saga_type"] == saga_type])
    return part, nodes_of(part, completed(choreography, part), views)


def _strangers(story: Story, choreography: Choreography) -> list[NodeProgress]:
    """Return a node for each service of which neither log nor contract is known: it may have any part in the saga."""
    known = {contract.service for contract in choreography.contracts}
    strange = [service for service in story.unreachable if service not in known]
    return [NodeProgress(service=each, name="?", kind="step", status=Status.UNKNOWN) for each in strange]


def _stray_letters(views: Mapping[str, View], nodes: list[NodeProgress]) -> Iterator[tuple[str, str]]:
    """Yield service and id of each dead letter that stops no node."""
    stopping = {node.letter_id for node in nodes}
    for service, view in views.items():
        yield from ((service, str(row["id"])) for row in view.dead_letters if row["id"] not in stopping)
