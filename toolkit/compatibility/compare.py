"""Compares two releases: each saga of the old one by its edges, its names, and what its sagas in flight become."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from toolkit.checker.explorer import MOST_STATES, Exploration, explore
from toolkit.checker.findings import Finding
from toolkit.checker.plan_explorer import PlanExploration
from toolkit.compatibility.changed_moves import Rollout
from toolkit.compatibility.changed_plans import explore_plans, finding_of_plan
from toolkit.compatibility.edges import Edge, edges_of, findings_of
from toolkit.compatibility.findings import DRAINED, ChangeFinding, Level
from toolkit.compatibility.in_flight import ends_by_deadline, explore_change, finding_in_flight
from toolkit.compatibility.releases import Change, Release, release_of
from toolkit.compatibility.rules import broken_rules, coordinators_of
from toolkit.declaration.contract import Contract

#: Findings that only stand where the exploration proves nothing: whether they matter depends on the graph.
_UNLESS_PROVED = ("compensation removed", "event renamed")
#: Findings of the new release alone that a declaration kept for sagas in flight has to have.
_OF_KEPT = ("unreachable", "unemitted event")


@dataclass(frozen=True, slots=True)
class ChangeReport:
    """What a change does to one saga.

    - `edges`: each event from its sender to its readers, and whether it is read in each combination of releases.
    - `explorations`: of the sagas in flight; of a coordinated saga one for each plan. Empty with the `reason`.
    """

    saga: str
    findings: tuple[ChangeFinding, ...]
    edges: tuple[Edge, ...] = ()
    explorations: tuple[Exploration | PlanExploration, ...] = ()
    reason: str = ""

    @property
    def is_compatible(self) -> bool:
        """Whether nothing in flight is lost; notes do not count."""
        return not any(each.level is Level.ERROR for each in self.findings)

    @property
    def is_proved(self) -> bool:
        """Whether sagas in flight end right in every interleaving."""
        return bool(self.explorations) and all(each.is_proved for each in self.explorations)

    @property
    def is_unfinished(self) -> bool:
        """Whether there are more states than were explored."""
        return any(not each.is_complete for each in self.explorations)

    @property
    def states(self) -> int:
        """The number of states that were explored."""
        return sum(each.states for each in self.explorations)


def compare(
    old: Iterable[Contract], new: Iterable[Contract], *, rollout: Rollout | None = None, most_states: int = MOST_STATES
) -> Iterator[ChangeReport]:
    """Yield a report of each saga of the old release; `most_states` bounds each exploration."""
    old, new, rollout = list(old), list(new), rollout or Rollout()
    for saga in dict.fromkeys(each.name for contract in old for each in contract.sagas):
        former, latter = release_of(old, saga), release_of(new, saga)
        if former and latter:
            yield _report(Change(former, latter), rollout, most_states=most_states)
        elif former:
            yield ChangeReport(saga, (_removed(former),), reason="it is gone")


def draining(finding: Finding, old: Iterable[Contract]) -> ChangeFinding | None:
    """Return a note in place of a finding of the new release, if what it names is kept for sagas in flight."""
    if finding.rule not in _OF_KEPT or not (release := release_of(old, finding.saga)):
        return None
    for step in release.graph.steps:
        undoing = step.undoing.name if step.undoing else None
        slots = step.slots if finding.function == step.name else step.undoing.slots if step.undoing else ()
        is_named = step.service == finding.service and finding.function in (step.name, undoing)
        if is_named and all(not slot.isdisjoint(release.graph.possible) for slot in slots):
            return ChangeFinding(
                rule="kept for sagas in flight",
                saga=finding.saga,
                service=finding.service,
                function=finding.function,
                message=finding.message,
                cure=f"Keep this {DRAINED}, then remove it",
                level=Level.NOTE,
            )
    return None


def _report(change: Change, rollout: Rollout, *, most_states: int) -> ChangeReport:
    edges = edges_of(change, order=rollout.order)
    rules = broken_rules(change)
    findings = [*rules, *findings_of(change, edges)]
    old, new = coordinators_of(change.old), coordinators_of(change.new)
    name = change.old.saga.name
    if old != new or (old and old[0] not in change.old.contracts):
        reason = "another coordinator asks its steps" if old != new else f"the contract of {old[0]} is not there"
        return ChangeReport(name, tuple(findings), tuple(edges), reason=reason)
    explorations, found = _of_plans(change, old[0], most_states) if old else _of_graph(change, rollout, most_states)
    if all(each.is_proved for each in explorations):
        findings = [each for each in findings if each.rule not in _UNLESS_PROVED]
    reason = "" if explorations else f"{old[0]} has no plan to explore"
    if explorations and not found and any(each.counterexamples for each in explorations):
        reason = "the new release breaks in new sagas, too"
    return ChangeReport(name, (*findings, *found), tuple(edges), tuple(explorations), reason)


def _of_graph(
    change: Change, rollout: Rollout, most_states: int
) -> tuple[list[Exploration | PlanExploration], list[ChangeFinding]]:
    """Explore a choreography; what breaks in sagas of the new release alone is for `check` to report."""
    exploration = explore_change(change, rollout, most_states=most_states)
    own = set()
    if exploration.counterexamples:
        own = {each.invariant for each in explore(change.new.graph, most_states=most_states).counterexamples}
    found = [each for each in exploration.counterexamples if each.invariant not in own]
    waits = ends_by_deadline(change, rollout, most_states=most_states) if exploration.is_proved else None
    return [exploration], [*(finding_in_flight(exploration, each) for each in found), *([waits] if waits else [])]


def _of_plans(
    change: Change, coordinator: str, most_states: int
) -> tuple[list[Exploration | PlanExploration], list[ChangeFinding]]:
    explored = explore_plans(change, coordinator, most_states=most_states)
    found = [
        finding_of_plan(plan, exploration, each)
        for plan, exploration in explored
        for each in exploration.counterexamples
    ]
    return [exploration for _, exploration in explored], found


def _removed(release: Release) -> ChangeFinding:
    step = release.graph.steps[0]
    return ChangeFinding(
        rule="saga removed",
        saga=release.saga.name,
        service=step.service,
        function=step.name,
        message=f"no service takes part in the saga {release.saga.name} any more",
        cure=f"Keep its services {DRAINED}; under another name it is another saga",
    )
