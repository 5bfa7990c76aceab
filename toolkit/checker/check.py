"""Checks sagas: by the static rules, and in every interleaving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import MOST_STATES, Exploration, explore
from toolkit.checker.findings import Finding
from toolkit.checker.graph import graph_of
from toolkit.checker.rules import broken_rules
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True)
class SagaReport:
    """What was found in one saga: by the static rules first, then in its interleavings."""

    saga: str
    findings: tuple[Finding, ...]
    exploration: Exploration

    @property
    def is_proved(self) -> bool:
        """Whether nothing is wrong, in any interleaving."""
        return self.exploration.is_proved and not self.findings


def check(services: Iterable[Service | Contract], *, most_states: int = MOST_STATES) -> Iterator[SagaReport]:
    """Yield a report of each saga that these services take part in; `most_states` bounds each exploration."""
    choreography = Choreography(services)
    findings = broken_rules(choreography)
    for saga in choreography.sagas:
        exploration = explore(graph_of(choreography, saga), most_states=most_states)
        found = [finding_of(exploration, each) for each in exploration.counterexamples]
        own = [each for each in findings if each.saga == saga.name]
        yield SagaReport(saga.name, (*own, *found), exploration)
