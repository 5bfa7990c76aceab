"""Checks of the bindings: each event reaches the queues of its consumers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from toolkit.declaration.contract import Contract, EventContract
from toolkit.declaration.events import routing_key
from toolkit.doctor.checks.broker import ENABLE_MANAGEMENT, answering, management_of, why_unmanaged
from toolkit.doctor.facts import BrokerFacts, Facts, ManagementFacts, QueueFacts
from toolkit.doctor.findings import Observation, advice, check, fine, problem, unchecked
from toolkit.messaging.envelope import CONTROL_EVENTS


def _managed(facts: Facts) -> Iterator[tuple[BrokerFacts, ManagementFacts]]:
    """Yield the broker with its management API, if that answers; the check "binding" reports that it does not."""
    for broker in answering(facts):
        if management := management_of(broker):
            yield broker, management


@check(
    "binding",
    why="the event passes the service by, and its step is never executed",
    cure="`saga run {service}` binds it again every SAGA_REDECLARE_EVERY; by hand: `rabbitmqadmin declare binding "
    "source={exchange} destination={queue} routing_key={key}`",
)
def bindings(facts: Facts) -> Iterator[Observation]:
    """The bindings in the management API: each queue has one for each event of its service's contract.

    The contract is that of the running service (`/contract`), else that of the code here.
    """
    for broker in answering(facts):
        if (management := management_of(broker)) is None:
            found = f"bindings, policies and all arguments are unknown: {why_unmanaged(broker)}"
            yield unchecked(found, cure=ENABLE_MANAGEMENT)
            continue
        for queue in broker.queues:
            if queue.exists:
                yield from _missing(queue, facts, management)


def _missing(queue: QueueFacts, facts: Facts, management: ManagementFacts) -> Iterator[Observation]:
    bound = [(each.exchange, each.key) for each in management.bindings if each.queue == queue.name]
    missing = [
        (exchange, key)
        for exchange, key in _declared(queue, facts)
        if not any(found == exchange and matches(pattern, key) for found, pattern in bound)
    ]
    for exchange, key in missing:
        yield problem(
            f"{queue.name} is not bound to {key or f'its own exchange {exchange}'}",
            queue.service,
            fields={"exchange": exchange, "queue": queue.name, "key": key},
        )
    if not missing:
        yield fine("bound to all consumed events" if queue.service in facts.contracts else "bound", queue.service)


def _declared(queue: QueueFacts, facts: Facts) -> list[tuple[str, str]]:
    """Return the exchanges and keys that a queue is declared with; its own exchange ignores the key."""
    exchange = facts.settings.exchange
    if queue.is_dead:
        return [(f"{exchange}.dead", queue.name.removesuffix(".dead"))]
    contract = facts.contracts.get(queue.service)
    consumed = contract.bound_keys() if contract else []
    return [(exchange, key) for key in (*consumed, *map(routing_key, CONTROL_EVENTS))] + [(queue.name, "")]


@check(
    "former binding",
    why="each event by this binding becomes a dead letter",
    cure="`rabbitmqadmin delete binding source={exchange} destination_type=queue destination={queue} "
    "properties_key={key}`; the service itself removes a former release's bindings once none of its processes is left",
)
def former_bindings(facts: Facts) -> Iterator[Observation]:
    """The same bindings: none of them is for an event that the service does not consume."""
    for broker, management in _managed(facts):
        for queue in broker.queues:
            if queue.exists and (queue.is_dead or queue.service in facts.contracts):
                yield from _surplus(queue, facts, management)


def _surplus(queue: QueueFacts, facts: Facts, management: ManagementFacts) -> Iterator[Observation]:
    declared = {("", queue.name), *_declared(queue, facts)}
    own = [each for each in management.bindings if each.queue == queue.name]
    surplus = [each for each in own if (each.exchange, each.key) not in declared]
    for each in surplus:
        yield problem(
            f"{queue.name} is bound to {each.key} of {each.exchange}, which {queue.service} does not consume",
            queue.service,
            fields={"exchange": each.exchange, "queue": queue.name, "key": each.key or "~"},
        )
    if not surplus:
        yield fine("no other bindings", queue.service)


@check(
    "former queue",
    why="it fills up with each event, until the broker has no room for other queues",
    cure="start its consumer; if that is gone: `rabbitmqctl delete_queue -p {vhost} {queue}`",
)
def former_queues(facts: Facts) -> Iterator[Observation]:
    """The queues that are bound to the exchange, belong to no examined service, and have no consumer.

    A queue with a consumer may belong to a foreign participant, or to a service that was not named.
    """
    exchanges = (facts.settings.exchange, f"{facts.settings.exchange}.dead")
    for broker, management in _managed(facts):
        examined = {queue.name for queue in broker.queues}
        bound = {each.queue for each in management.bindings if each.exchange in exchanges} - examined
        idle = [name for name in sorted(bound) if name in management.queues and management.queues[name].consumers == 0]
        for name in idle:
            found = f"{name} has no consumer, and no examined service declares it"
            yield advice(found, fields={"vhost": broker.vhost, "queue": name})
        if not idle:
            yield fine("each bound queue has a service")


@check(
    "unroutable event",
    why="the event returns to its publisher and waits in the outbox, and its saga is stuck",
    cure="let a step or a compensation consume {event}, or declare it with optional=True",
)
def unroutable_events(facts: Facts) -> Iterator[Observation]:
    """The same bindings: one for each event that a service emits or that starts a saga, except optional events."""
    for _, management in _managed(facts):
        if not facts.contracts:
            continue
        patterns = [each.key for each in management.bindings if each.exchange == facts.settings.exchange]
        unbound = [
            (emitter, event)
            for emitter, event in _emitted_events(facts.contracts.values())
            if not any(matches(pattern, event.routing_key) for pattern in patterns)
        ]
        for emitter, event in unbound:
            consumers = [name for name, each in facts.contracts.items() if event in each.consumed()]
            cure = "; ".join(f"`saga run {name}`" for name in consumers) or None
            yield problem(f"no queue is bound to {event.routing_key}", emitter, cure, {"event": event.name})
        if not unbound:
            yield fine("every event has a queue")


def _emitted_events(contracts: Iterable[Contract]) -> Iterator[tuple[str | None, EventContract]]:
    """Yield each event that requires a consumer, with its emitter; starting events come last, without one."""
    starting: dict[str, EventContract] = {}
    for contract in contracts:
        starts = [saga.starts_with for saga in contract.sagas if saga.starts_with in contract.events]
        starting |= {name: contract.events[name] for name in starts}
        yield from ((contract.service, event) for event in contract.emitted() if not event.optional)
    yield from ((None, event) for event in starting.values())


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange's binding takes messages with this routing key."""
    words = {"*": r"[^.]*", "#": r".*"}
    parts = [words.get(word, re.escape(word)) for word in pattern.split(".")]
    joined = r"\.".join(parts).replace(r"\..*", r"(\..*)?").replace(r".*\.", r"(.*\.)?")
    return re.fullmatch(joined, key) is not None
