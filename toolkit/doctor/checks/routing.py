"""Whether each event finds its way: from the exchange, by its routing key, into the queues of those who hear it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from toolkit.declaration.contract import Contract, EventContract
from toolkit.declaration.events import routing_key
from toolkit.doctor.checks.broker import HOW_TO_ASK, answering, management_of, why_not
from toolkit.doctor.facts import Binding, Facts, ManagementFacts, QueueFacts
from toolkit.doctor.findings import Seen, advice, check, fine, problem, unchecked
from toolkit.messaging.envelope import CONTROL_EVENTS


@check("binding", why="the event goes past the service, and what it should do is never done")
def bindings(facts: Facts) -> Iterator[Seen]:
    """Each queue is bound to all that its service hears."""
    for broker in answering(facts):
        if (told := management_of(broker)) is None:
            yield unchecked("bindings and policies were not asked for: " + why_not(broker), cure=HOW_TO_ASK)
            continue
        for queue in broker.queues:
            if queue.is_there:
                yield from _judged(queue, facts, told)


def _judged(queue: QueueFacts, facts: Facts, told: ManagementFacts) -> Iterator[Seen]:
    bound = [(each.exchange, each.key) for each in told.bindings if each.queue == queue.name]
    missing = [
        (exchange, key)
        for exchange, key in _due(queue, facts)
        if not any(found == exchange and matches(pattern, key) for found, pattern in bound)
    ]
    for exchange, key in missing:
        yield problem(
            f"{queue.name} is not bound to {key or f'its own exchange {exchange}'}",
            queue.service,
            cure=f"saga run {queue.service} binds it again every SAGA_REDECLARE_EVERY; by hand: rabbitmqadmin declare "
            f"binding source={exchange} destination={queue.name} routing_key={key}",
        )
    if not missing:
        yield fine("bound to all that is heard" if queue.service in facts.contracts else "bound", queue.service)


def _due(queue: QueueFacts, facts: Facts) -> list[tuple[str, str]]:
    """Return the exchanges that a queue is to be bound to, and by which keys; its own exchange looks at none."""
    exchange = facts.settings.exchange
    if queue.is_dead:
        return [(f"{exchange}.dead", queue.name.removesuffix(".dead"))]
    contract = facts.contracts.get(queue.service)
    consumed = [event.routing_key for event in contract.consumed()] if contract else []
    return [(exchange, key) for key in (*consumed, *map(routing_key, CONTROL_EVENTS))] + [(queue.name, "")]


@check("former binding", why="each of these events comes, and becomes a dead letter")
def former_bindings(facts: Facts) -> Iterator[Seen]:
    """No queue is bound to more than its service consumes: a former release may have left it."""
    for broker in answering(facts):
        if (told := management_of(broker)) is None:
            continue  # said once, of the bindings
        for queue in broker.queues:
            if queue.is_there and (queue.is_dead or queue.service in facts.contracts):
                yield from _more_than_due(queue, facts, told)


def _more_than_due(queue: QueueFacts, facts: Facts, told: ManagementFacts) -> Iterator[Seen]:
    due = {("", queue.name), *_due(queue, facts)}
    found = [each for each in told.bindings if each.queue == queue.name and (each.exchange, each.key) not in due]
    for each in found:
        yield problem(
            f"{queue.name} is bound to {each.key} of {each.exchange}, which {queue.service} does not consume",
            queue.service,
            cure=f"rabbitmqadmin delete binding source={each.exchange} destination_type=queue "
            f"destination={queue.name} properties_key={each.key or '~'}; what a former release bound is unbound by "
            "the service itself once none of its processes is left",
        )
    if not found:
        yield fine("bound to nothing else", queue.service)


@check("former queue", why="it fills up with each event, until the broker has no room for those of others")
def former_queues(facts: Facts) -> Iterator[Seen]:
    """No queue is bound to the exchange that nothing takes from: a former service may have left it."""
    exchanges = (facts.settings.exchange, f"{facts.settings.exchange}.dead")
    for broker in answering(facts):
        if (told := management_of(broker)) is None:
            continue  # said once, of the bindings
        examined = {queue.name for queue in broker.queues}
        bound = {each.queue for each in told.bindings if each.exchange in exchanges} - examined
        idle = sorted(name for name in bound if told.consumers.get(name) == 0)
        for name in idle:
            yield advice(
                f"nothing takes from {name}, and no service that was examined declares it",
                cure=f"start what takes from it; if that is gone: rabbitmqctl delete_queue -p {broker.vhost} {name}",
            )
        if not idle:
            yield fine("each bound queue has a service")


@check("unroutable event", why="the event comes back to its publisher, waits in the outbox, and its saga stands still")
def unroutable_events(facts: Facts) -> Iterator[Seen]:
    """Each event that somebody emits, and that is not optional, is bound to some queue."""
    for broker in answering(facts):
        if (told := management_of(broker)) is None or not facts.contracts:
            continue
        unconsumed = 0
        for emitter, event in _emitted_events(facts.contracts.values()):
            if not _is_bound(event.routing_key, facts.settings.exchange, told.bindings):
                unconsumed += 1
                yield problem(f"no queue is bound to {event.routing_key}", emitter, cure=_consumers_of(event, facts))
        if not unconsumed:
            yield fine("every event finds a queue")


def _consumers_of(event: EventContract, facts: Facts) -> str:
    names = [name for name, each in facts.contracts.items() if event in each.consumed()]
    if names:
        return "; ".join(f"saga run {name}" for name in names)
    return f"let a step or a compensation take {event.name}, or declare it with optional=True"


def _emitted_events(contracts: Iterable[Contract]) -> Iterator[tuple[str | None, EventContract]]:
    """Yield what has to be heard: each starting event, and what services emit."""
    starting: dict[str, EventContract] = {}
    for contract in contracts:
        starting |= {
            saga.starts_with: contract.events[saga.starts_with]
            for saga in contract.sagas
            if saga.starts_with in contract.events
        }
        for event in contract.emitted():
            if not event.optional:
                yield contract.service, event
    for event in starting.values():
        yield None, event


def _is_bound(key: str, exchange: str, found: Iterable[Binding]) -> bool:
    return any(each.exchange == exchange and matches(each.key, key) for each in found)


def matches(pattern: str, key: str) -> bool:
    """Whether a topic exchange's binding takes messages with this routing key."""
    words = {"*": r"[^.]*", "#": r".*"}
    parts = [words.get(word, re.escape(word)) for word in pattern.split(".")]
    joined = r"\.".join(parts).replace(r"\..*", r"(\..*)?").replace(r".*\.", r"(.*\.)?")
    return re.fullmatch(joined, key) is not None
