"""Checks sagas: by the static rules, and in every interleaving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

from toolkit.checker.coordinated import Model
from toolkit.checker.diagnosis import finding_of
from toolkit.checker.explorer import MOST_STATES, Exploration, explore
from toolkit.checker.findings import Finding
from toolkit.checker.graph import graph_of
from toolkit.checker.plan_diagnosis import plan_finding_of
from toolkit.checker.plan_explorer import PlanExploration, explore_plan
from toolkit.checker.plan_rules import PlanRules
from toolkit.checker.rules import broken_rules
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract, SagaContract
from toolkit.declaration.plan_contract import PlanContract
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True)
class SagaReport:
    """What was found in one saga, or in one plan of a coordinated saga: by the static rules, then in its interleavings.

    - `exploration`: None where there was nothing to explore: the plan of the `coordinator` is not known.
    - `coordinator`: the service that asks the saga's steps; no events lead from step to step then.
    - `plan`: its plan, with the examples of the starting event that lead to it. A saga has a report for each plan; the
      first one has the findings of the static rules that hold under any plan, too.
    """

    saga: str
    findings: tuple[Finding, ...]
    exploration: Exploration | PlanExploration | None
    coordinator: str | None = None
    plan: PlanContract | None = None

    @property
    def is_proved(self) -> bool:
        """Whether nothing is wrong, in any interleaving."""
        return self.exploration is not None and self.exploration.is_proved and not self.findings

    @property
    def is_unfinished(self) -> bool:
        """Whether the saga has more states than were explored."""
        return self.exploration is not None and not self.exploration.is_complete


def check(services: Iterable[Service | Contract], *, most_states: int = MOST_STATES) -> Iterator[SagaReport]:
    """Yield a report of each saga that these services take part in; `most_states` bounds each exploration."""
    choreography = Choreography(services)
    coordinators = {saga.name: _coordinator_of(choreography, saga.name) for saga in choreography.sagas}
    findings = broken_rules(choreography, coordinated=[saga for saga, by in coordinators.items() if by])
    for saga in choreography.sagas:
        own = [each for each in findings if each.saga == saga.name]
        if coordinator := coordinators[saga.name]:
            yield from _coordinated(choreography, saga, coordinator, own, most_states=most_states)
            continue
        exploration = explore(graph_of(choreography, saga), most_states=most_states)
        found = [finding_of(exploration, each) for each in exploration.counterexamples]
        yield SagaReport(saga.name, (*own, *found), exploration)


def _coordinated(
    choreography: Choreography, saga: SagaContract, coordinator: str, own: Iterable[Finding], *, most_states: int
) -> Iterator[SagaReport]:
    """Yield a report of each plan; where the coordinator's contract is not known, one without an exploration."""
    contracts = (each for each in choreography.contracts if each.service == coordinator)
    plans = next((each.plans.get(saga.name, ()) for each in contracts), ())
    if not plans:
        yield SagaReport(saga.name, tuple(own), None, coordinator)
    for plan in plans:
        rules = PlanRules(choreography, saga, coordinator, plan)
        planned = rules.planned()
        exploration = explore_plan(Model(planned, replicas=2), most_states=most_states) if planned else None
        found = [plan_finding_of(exploration, each) for each in exploration.counterexamples] if exploration else []
        yield SagaReport(saga.name, (*own, *rules.findings(), *found), exploration, coordinator, plan)
        own = ()


def _coordinator_of(choreography: Choreography, saga: str) -> str | None:
    asked = (contract.asked_by[saga] for contract in choreography.contracts if saga in contract.asked_by)
    coordinating = (contract.service for contract in choreography.contracts if saga in contract.coordinates)
    return next(chain(asked, coordinating), None)
