"""Checks sagas: by the static rules, and in every interleaving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import MOST_STATES, Exploration, explore
from toolkit.checker.findings import Finding
from toolkit.checker.graph import SagaGraph, graph_of
from toolkit.checker.moves import Moves
from toolkit.checker.rules import broken_rules
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True)
class SagaReport:
    """What was found in one saga: by the static rules first, then in its interleavings.

    `coordinator`: the service that asks the saga's steps by a plan of its own. Then no events lead from step to step,
    and there is nothing to explore: the order is the plan's, and its rules are those of the protocol. Its findings are
    those of the static rules that hold under any plan.
    """

    saga: str
    findings: tuple[Finding, ...]
    exploration: Exploration
    coordinator: str | None = None

    @property
    def is_proved(self) -> bool:
        """Whether nothing is wrong, in any interleaving."""
        return self.coordinator is None and self.exploration.is_proved and not self.findings

    @property
    def is_unfinished(self) -> bool:
        """Whether the saga has more states than were explored."""
        return not self.exploration.is_complete


def check(services: Iterable[Service | Contract], *, most_states: int = MOST_STATES) -> Iterator[SagaReport]:
    """Yield a report of each saga that these services take part in; `most_states` bounds each exploration."""
    choreography = Choreography(services)
    coordinators = {saga.name: _coordinator_of(choreography, saga.name) for saga in choreography.sagas}
    findings = broken_rules(choreography, coordinated=[saga for saga, by in coordinators.items() if by])
    for saga in choreography.sagas:
        own = [each for each in findings if each.saga == saga.name]
        if coordinator := coordinators[saga.name]:
            graph = SagaGraph(saga.name, saga.starts_with, saga.completes_with, saga.fails_with, steps=())
            yield SagaReport(saga.name, tuple(own), Exploration(graph, Moves(graph)), coordinator)
            continue
        exploration = explore(graph_of(choreography, saga), most_states=most_states)
        found = [finding_of(exploration, each) for each in exploration.counterexamples]
        yield SagaReport(saga.name, (*own, *found), exploration)


def _coordinator_of(choreography: Choreography, saga: str) -> str | None:
    asked = (contract.asked_by[saga] for contract in choreography.contracts if saga in contract.asked_by)
    coordinating = (contract.service for contract in choreography.contracts if saga in contract.coordinates)
    return next(chain(asked, coordinating), None)
