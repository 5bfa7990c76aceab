"""From a coordinator's contract to the plan that is explored, and the faults that need no interleaving."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from toolkit.checker.findings import Finding
from toolkit.checker.plans import AskedStep, CoordinatedPlan
from toolkit.declaration.choreography import Choreography, Node
from toolkit.declaration.contract import SagaContract
from toolkit.declaration.events import Event
from toolkit.declaration.plan_contract import PlanContract
from toolkit.errors import DeclarationError, StepError
from toolkit.orchestration.orchestrator import Received, SagaStep
from toolkit.orchestration.plan import Plan

#: The function that makes a plan, and the attribute that names the step which announces the failure.
_STEPS, _END = "define_steps", "failed_end"


class PlanRules:
    """One plan of one saga, by the services' contracts; `coordinator` is the service that has it."""

    def __init__(self, choreography: Choreography, saga: SagaContract, coordinator: str, plan: PlanContract) -> None:
        self._saga = saga
        self._coordinator = coordinator
        self._plan = plan
        nodes = choreography.nodes_of(saga)
        self._undoings = {node.step: node for node in nodes if node.is_compensation}
        self._nodes: dict[str, list[Node]] = {}
        for node in nodes:
            if not node.is_compensation:
                self._nodes.setdefault(node.name, []).append(node)

    def findings(self) -> list[Finding]:
        """Return the faults: of the plan itself, else of the steps that it asks."""
        return [*self._without_sense()] or [*self._unknown(), *self._joins(), *self._untaken()]

    def planned(self) -> CoordinatedPlan | None:
        """Return the plan to be explored; None where it is none, or asks for steps that are not declared."""
        if [*self._without_sense(), *self._unknown()]:
            return None
        saga, end = self._saga, self._plan.failed_end
        return CoordinatedPlan(
            saga=saga.name,
            coordinator=self._coordinator,
            starts_with=saga.starts_with,
            completes_with=saga.completes_with,
            fails_with=saga.fails_with,
            groups=tuple(tuple(map(self._step, group)) for group in self._plan.groups),
            failed_end=self._step(end) if end else None,
            end_takes=frozenset(self._node(end).triggers) if end and end not in self._plan.builds else None,
            owns=frozenset(self._plan.ends),
        )

    def _step(self, name: str) -> AskedStep:
        node = self._node(name)
        is_end = node.success in (self._saga.completes_with, self._saga.fails_with)
        undoing = None if is_end else self._undoings.get(name)
        return AskedStep(
            name=name,
            service=node.service,
            success=node.success,
            refusals=node.refusals,
            undoing=undoing.name if undoing else None,
            undone=undoing.success if undoing else None,
            has_timeout=name in self._plan.timeouts,
        )

    def _node(self, name: str) -> Node:
        return self._nodes[name][0]

    def _names(self) -> list[str]:
        end = self._plan.failed_end
        return [*(name for group in self._plan.groups for name in group), *([end] if end else [])]

    # -- rules -------------------------------------------------------------------------------------------------

    def _without_sense(self) -> Iterator[Finding]:
        """Each example of the starting event leads to a plan, by the coordinator's own rules."""
        if self._plan.error:
            yield self._at(_STEPS, "no plan", self._plan.error, self._plan.cure)
            return
        groups = [[self._asked(name) for name in group] for group in self._plan.groups]
        end = self._asked(self._plan.failed_end) if self._plan.failed_end else None
        try:
            Plan.of(groups, failed_end=end, timeouts={}, own=self._plan.coordinator)
        except (StepError, DeclarationError) as error:
            message, _, cure = str(error).rpartition(": ")
            yield self._at(_STEPS, "no plan", message, cure.capitalize())

    def _asked(self, name: str) -> SagaStep:
        return SagaStep(name, action=_some_event if name in self._plan.builds else None)

    def _unknown(self) -> Iterator[Finding]:
        """Each step that is asked is declared, in one service."""
        for name in self._names():
            services = [node.service for node in self._nodes.get(name, [])]
            function = _END if name == self._plan.failed_end else _STEPS
            if not services:
                message = f"it asks {name}, and no service declares this step of {self._saga.name}"
                yield self._at(function, "unknown step", message, "Name a step, or check its service, too")
            elif len(services) > 1:
                message = f"it asks {name}, a step of {' and of '.join(services)}"
                yield self._at(function, "ambiguous step", message, "Rename one: its name is its address")

    def _joins(self) -> Iterator[Finding]:
        """Each step that is asked takes one event."""
        for name in self._names():
            for node in (each for each in self._nodes.get(name, []) if each.handler.is_join):
                message = f"{name} ({node.service}) takes several events, and a coordinator asks with one"
                cure = "Let it take one: the coordinator joins steps itself, by Parallel"
                yield Finding("asked join", self._saga.name, node.service, name, message, cure)

    def _untaken(self) -> Iterator[Finding]:
        """Each step takes the event that it is asked with: without an action, the success of the step before."""
        for before, group in pairwise(((), *self._plan.groups)):
            known = not before or before[0] in self._nodes
            event = (self._node(before[0]).success if before else self._saga.starts_with) if known else None
            for name in group:
                if event is None or name in self._plan.builds or name not in self._nodes:
                    continue
                node = self._node(name)
                if event not in node.triggers:
                    message = f"it asks {name} ({node.service}) with {event}, and the step takes {_or(node.triggers)}"
                    cure = f'Build that event: SagaStep("{name}", action=lambda received: {node.triggers[0]}(…))'
                    yield self._at(_STEPS, "untaken event", message, cure)

    def _at(self, function: str, rule: str, message: str, cure: str) -> Finding:
        return Finding(rule, self._saga.name, self._coordinator, function, message, cure)


def _some_event(received: Received) -> Event:
    raise NotImplementedError("the contract has no function; this one is not called")


def _or(events: tuple[str, ...]) -> str:
    return " | ".join(events)
