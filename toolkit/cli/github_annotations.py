"""Findings as workflow commands, which GitHub shows as annotations of a change's lines."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from toolkit.checker.findings import Finding
    from toolkit.cli.check_places import Place

#: What ends a command's value early, each with how it is written.
_ESCAPED = {"%": "%25", "\r": "%0D", "\n": "%0A"}
#: And what ends one of its properties.
_IN_PROPERTY = {**_ESCAPED, ":": "%3A", ",": "%2C"}


def workflow_commands(found: Iterable[tuple[Finding, Place | None]]) -> Iterator[str]:
    """Yield a line for each finding: an error, or a notice for what is only noted."""
    for finding, place in found:
        where = {"file": place.path, "line": str(place.line)} if place else {}
        properties = {**where, "title": f"{finding.rule} in saga {finding.saga}"}
        shown = ",".join(f"{name}={_escaped(value, _IN_PROPERTY)}" for name, value in properties.items())
        level = "notice" if getattr(finding, "level", "error") == "note" else "error"
        yield f"::{level} {shown}::{_escaped(text_of(finding), _ESCAPED)}"


def text_of(finding: Finding) -> str:
    """Return a finding as a text of several lines: what is wrong, its story, and what to change."""
    story = [f"  {number}. {sentence}" for number, sentence in enumerate(finding.story, start=1)]
    cure = f"Change {finding.function} ({finding.service}): {finding.cure}."
    return "\n".join([f"{finding.message}.", *story, cure])


def _escaped(text: str, signs: dict[str, str]) -> str:
    return "".join(signs.get(each, each) for each in text)
