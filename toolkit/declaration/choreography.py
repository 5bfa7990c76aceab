"""The choreography as a graph: which step consumes and emits which event, read from the services' contracts alone.

No declaration lists the order of a saga's steps; the order follows from the edges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from toolkit.declaration.contract import Contract, EventContract, HandlerContract, SagaContract
from toolkit.declaration.plan_contract import PlanContract
from toolkit.declaration.service import Service


@dataclass(frozen=True, slots=True)
class Node:
    """A step or a compensation with its service; events are given by name."""

    service: str
    handler: HandlerContract
    saga: SagaContract

    @property
    def name(self) -> str:
        """The function's name."""
        return self.handler.name

    @property
    def step(self) -> str:
        """The name of the step; of a compensation, the name of the step that it undoes."""
        return self.handler.of or self.handler.name

    @property
    def is_compensation(self) -> bool:
        """Whether it undoes a step."""
        return self.handler.kind == "compensation"

    @property
    def triggers(self) -> tuple[str, ...]:
        """The names of the events that it runs on."""
        return self.handler.triggers

    @property
    def success(self) -> str:
        """The name of the event that it emits on success."""
        return self.handler.success

    @property
    def refusals(self) -> tuple[str, ...]:
        """The names of its refusals; a compensation has none."""
        return self.handler.refusals

    @property
    def emits(self) -> tuple[str, ...]:
        """All events that it may emit, the success first."""
        return self.handler.emits


@dataclass(frozen=True, slots=True)
class Edge:
    """An event that leads from one node to another; None stands for the outside world."""

    event: str
    emitter: Node | None
    listener: Node | None


class Choreography:
    """The steps and compensations of several services, and the events that join them."""

    def __init__(self, services: Iterable[Service | Contract]) -> None:
        self.contracts = [each if isinstance(each, Contract) else Contract.of(each) for each in services]
        self.nodes = [node for contract in self.contracts for node in _nodes_of(contract)]

    @property
    def sagas(self) -> list[SagaContract]:
        """The sagas that the services take part in."""
        return list({saga.name: saga for contract in self.contracts for saga in contract.sagas}.values())

    def saga(self, name: str) -> SagaContract | None:
        """Return the saga of this name, or None where no service takes part in it."""
        return next((saga for saga in self.sagas if saga.name == name), None)

    def plan_of(self, saga: SagaContract) -> PlanContract | None:
        """Return the first plan by which a coordinator asks the saga's steps; None where no service has one."""
        plans = (plan for contract in self.contracts for plan in contract.plans.get(saga.name, ()))
        return next((plan for plan in plans if plan.error is None), None)

    def event(self, name: str) -> EventContract | None:
        """Return an event as its owner declares it, else as any other service does; None if no service declares it."""
        known = [(contract.service, contract.events[name]) for contract in self.contracts if name in contract.events]
        owned = [event for service, event in known if event.owner == service]
        return next(iter([*owned, *(event for _, event in known)]), None)

    def nodes_of(self, saga: SagaContract) -> list[Node]:
        """Return the saga's nodes: the forward path first, then the compensation path, then the unreachable ones."""
        ordered = [*self.forward(saga), *self._backward(saga), *self.nodes]
        return list(dict.fromkeys(node for node in ordered if node.saga.name == saga.name))

    def is_answer(self, event: str) -> bool:
        """Whether the event comes from a person or a system outside, while the saga runs."""
        contract = self.event(event)
        return contract is not None and contract.answer

    def answers(self, saga: SagaContract) -> list[str]:
        """Return the answers that the saga's steps take, in the order of its nodes."""
        taken = dict.fromkeys(event for node in self.nodes_of(saga) for event in node.triggers)
        return [event for event in taken if self.is_answer(event)]

    def edges(self, saga: SagaContract) -> list[Edge]:
        """Return the saga's edges in the order of its nodes, first those of the starting event and of answers."""
        outside = [(None, event) for event in (saga.starts_with, *self.answers(saga))]
        emitted_events = [(node, event) for node in self.nodes_of(saga) for event in node.emits]
        return [
            Edge(event, emitter, listener)
            for emitter, event in [*outside, *emitted_events]
            for listener in self.listeners(event, saga) or (None,)
        ]

    def listeners(self, event: str, saga: SagaContract) -> list[Node]:
        """Return the nodes of the saga that run on this event."""
        return [node for node in self.nodes if event in node.triggers and node.saga.name == saga.name]

    def forward(self, saga: SagaContract, *, since: str | None = None) -> list[Node]:
        """Return the steps of a saga in which no step refuses, in order, from the starting event or another one."""
        return self._reached(since or saga.starts_with, saga, onwards=_success_of_step)

    def reached_from(self, event: str, saga: SagaContract) -> list[Node]:
        """Return all nodes that this event leads to, directly or not, nearest first."""
        return self._reached(event, saga, onwards=lambda node: node.emits)

    def _backward(self, saga: SagaContract) -> Iterator[Node]:
        """Yield the nodes that the last refusal leads to, then those that the refusal before it adds, and so on."""
        for node in reversed(self.forward(saga)):
            for refusal in node.refusals:
                yield from self.reached_from(refusal, saga)

    def _reached(self, event: str, saga: SagaContract, *, onwards: Callable[[Node], Iterable[str]]) -> list[Node]:
        found: dict[Node, None] = {}
        waiting = deque([event])
        while waiting:
            for node in self.listeners(waiting.popleft(), saga):
                if node not in found:
                    found[node] = None
                    waiting.extend(onwards(node))
        return list(found)


def _nodes_of(contract: Contract) -> Iterator[Node]:
    sagas = {saga.name: saga for saga in contract.sagas}
    yield from (Node(contract.service, handler, sagas[handler.saga]) for handler in contract.handlers)


def _success_of_step(node: Node) -> Iterable[str]:
    return () if node.is_compensation else (node.success,)


def as_text(choreography: Choreography) -> str:
    """Return the choreography as text: each step, its triggers, its events and their consumers."""
    return "\n".join(line for saga in choreography.sagas for line in _saga_lines(choreography, saga))


def _saga_lines(choreography: Choreography, saga: SagaContract) -> Iterator[str]:
    ends = " | ".join((saga.completes_with, saga.fails_with))
    yield f"saga {saga.name}: {saga.starts_with} → {ends}"
    for node in choreography.nodes_of(saga):
        undoes = f", undoes {node.step}" if node.is_compensation else ""
        yield ""
        yield f"{'↩' if node.is_compensation else '→'} {node.name} ({node.service}{undoes})"
        yield f"    on {_names(node.triggers) if not node.handler.is_join else _slots(node)}"
        for event in node.emits:
            consumed_by = ", ".join(each.name for each in choreography.listeners(event, saga))
            yield f"    {'✗' if event in node.refusals else '✓'} {event} → {consumed_by or _end(event, saga)}"


def _end(event: str, saga: SagaContract) -> str:
    ends = {saga.completes_with: "the saga is completed", saga.fails_with: "the saga has failed"}
    return ends.get(event, "no consumer")


def _names(events: Iterable[str]) -> str:
    return ", ".join(events)


def _slots(node: Node) -> str:
    """Return the events of a join, those of each slot in brackets."""
    return " and ".join(f"({_names(slot.events)})" for slot in node.handler.slots)


def as_mermaid(choreography: Choreography) -> str:
    """Return the choreography as a Mermaid flowchart: the forward path solid, the compensation path dashed."""
    return "\n".join(["flowchart LR", *_groups(choreography), *_arrows(choreography)])


def _groups(choreography: Choreography) -> Iterator[str]:
    coordinators = {
        contract.service: {plan.coordinator: None for plans in contract.plans.values() for plan in plans if plan.groups}
        for contract in choreography.contracts
    }
    for service in (contract.service for contract in choreography.contracts):
        yield f"    subgraph service_{service} [{service}]"
        yield from (f"        {coordinator}[[{coordinator}]]" for coordinator in coordinators[service])
        for node in (each for each in choreography.nodes if each.service == service):
            yield f"        {node.name}{'{{' + node.name + '}}' if node.is_compensation else '[' + node.name + ']'}"
        yield "    end"


def _arrows(choreography: Choreography) -> Iterator[str]:
    for saga in choreography.sagas:
        if plan := choreography.plan_of(saga):
            yield from (f"    {arrow}" for arrow in _commands(choreography, saga, plan))
            continue
        forward = choreography.forward(saga)
        for edge in choreography.edges(saga):
            is_back = edge.emitter is not None and (edge.emitter not in forward or edge.event in edge.emitter.refusals)
            yield f"    {_arrow(edge, '-.->' if is_back else '-->')}"


def _commands(choreography: Choreography, saga: SagaContract, plan: PlanContract) -> Iterator[str]:
    """Yield the arrows of a coordinated saga: each step by its number, its compensation, and the ends."""
    nodes = choreography.nodes_of(saga)
    names = {step: number for number, group in enumerate(plan.groups, start=1) for step in group}
    yield f"{saga.starts_with}([{saga.starts_with}]) --> {plan.coordinator}"
    yield from (f"{plan.coordinator} --> |{number}| {step}" for step, number in names.items())
    undone = {node.step: node.name for node in nodes if node.is_compensation}
    for step, number in reversed(names.items()):
        if step in undone:
            yield f"{plan.coordinator} -.-> |undo {number}| {undone[step]}"
    if plan.failed_end:
        yield f"{plan.coordinator} -.-> |failed| {plan.failed_end}"
    for end, arrow in ((saga.completes_with, "-->"), (saga.fails_with, "-.->")):
        emitter = next((node.name for node in nodes if node.success == end), plan.coordinator)
        yield f"{emitter} {arrow} {end}([{end}])"


def _arrow(edge: Edge, arrow: str) -> str:
    event = edge.event
    outside = f"{event}([{event}])"
    if edge.emitter is None:
        return f"{outside} {arrow} {edge.listener.name if edge.listener else outside}"
    return f"{edge.emitter.name} {arrow} {f'|{event}| {edge.listener.name}' if edge.listener else outside}"
