"""Whether each service's queue keeps what it is given, and is given what the service hears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.doctor.checks.broker import HOW_TO_ASK, answering, management_of
from toolkit.doctor.facts import BrokerFacts, Difference, Facts, QueueFacts
from toolkit.doctor.findings import Seen, advice, check, fine, problem, unchecked

#: The arguments that have a check of their own.
_TYPE, _DEAD, _LIMIT = "x-queue-type", "x-dead-letter-exchange", "x-delivery-limit"
#: What makes messages, or the queue, disappear, by policy; of the delivery limit the lower one holds.
_LOSING = ("message-ttl", "expires", "delivery-limit")
#: What bounds a queue by policy, and the only way to overflow that loses nothing: its publishers keep the message.
_BOUNDS, _KEEPING = ("max-length", "max-length-bytes"), "reject-publish"


def _there(facts: Facts) -> Iterator[tuple[BrokerFacts, QueueFacts]]:
    for broker in answering(facts):
        for queue in broker.queues:
            if queue.is_there:
                yield broker, queue


def _known(facts: Facts) -> Iterator[tuple[BrokerFacts, QueueFacts]]:
    return ((broker, queue) for broker, queue in _there(facts) if queue.differences is not None)


def _made_anew(broker: BrokerFacts, queue: QueueFacts) -> str:
    return (
        f"stop {queue.service}, let {queue.name} run empty or move what waits in it, then: "
        f"rabbitmqctl delete_queue -p {broker.vhost} {queue.name}; the service declares it anew at its start"
    )


@check("queue", why="what a service should hear comes back to the publishers, and waits in their outboxes")
def queues(facts: Facts) -> Iterator[Seen]:
    """Each service has its queue, and one for dead letters."""
    for broker in answering(facts):
        for queue in broker.queues:
            if not queue.is_there:
                yield problem(
                    f"there is no queue {queue.name}",
                    queue.service,
                    cure=f"saga run {queue.service}, with SAGA_EXCHANGE={facts.settings.exchange}",
                )
            elif queue.differences is None:
                yield unchecked(
                    f"{queue.name} is there; how it was declared is not told: {queue.fault}",
                    queue.service,
                    cure=HOW_TO_ASK,
                )
            else:
                yield fine("both queues are there", queue.service)


@check("queue type", why="a classic queue has one copy, and counts no deliveries: it is lost with its node")
def queue_types(facts: Facts) -> Iterator[Seen]:
    """Each queue is a quorum queue."""
    for broker, queue in _known(facts):
        if other := queue.differs_in(_TYPE):
            yield problem(
                f"{queue.name} is a {other.found or 'classic'} queue, not a quorum queue",
                queue.service,
                cure=_made_anew(broker, queue),
            )
        else:
            yield fine("quorum queues", queue.service)


@check("dead-letter exchange", why="what expires or is rejected is dropped, and its saga stands still for ever")
def dead_letter_exchanges(facts: Facts) -> Iterator[Seen]:
    """What a queue gives up goes to the dead letters."""
    for broker, queue in _known(facts):
        if queue.is_dead:
            continue
        if other := queue.differs_in(_DEAD):
            found = f"sends what it gives up to {other.found}" if other.found else "has no dead-letter exchange"
            yield problem(f"{queue.name} {found}", queue.service, cure=_made_anew(broker, queue))
        elif broker.dead_exchange_fault is None:
            yield fine("what is given up goes to the dead letters", queue.service)


@check("delivery limit", why="outages, deployments and neighbours that died spend it, and the message is given up")
def delivery_limits(facts: Facts) -> Iterator[Seen]:
    """No queue gives a message up for how often it was delivered."""
    for broker, queue in _known(facts):
        if other := queue.differs_in(_LIMIT):
            found = f"gives a message up after {other.found} deliveries" if other.found else "names no delivery limit"
            yield problem(f"{queue.name} {found}", queue.service, cure=_made_anew(broker, queue))
        else:
            yield fine("no outage spends a limit", queue.service)


@check("queue arguments", why="the service can't declare its queue (PRECONDITION_FAILED), and does not start")
def arguments(facts: Facts) -> Iterator[Seen]:
    """Each queue has the arguments that its service declares."""
    for broker, queue in _known(facts):
        others = [each for each in queue.differences or () if each.argument not in (_TYPE, _DEAD, _LIMIT)]
        if others:
            told = "; ".join(map(_told, others))
            yield problem(f"{queue.name}: {told}", queue.service, cure=_made_anew(broker, queue))
        elif not queue.differences:
            yield fine("queues are as declared", queue.service)


def _told(difference: Difference) -> str:
    return f"{difference.argument} is {difference.found or 'not set'}, not {difference.wanted or 'unset'}"


@check("queue policy", why="events disappear before their service has seen them, or wait in outboxes")
def policies(facts: Facts) -> Iterator[Seen]:
    """No policy, of users or operators, overrides what keeps messages: it beats what the service declares."""
    for broker, queue in _there(facts):
        if (told := management_of(broker)) is None:
            continue  # said once, of the bindings
        policy = told.policies.get(queue.name, {})
        overflow = policy.get("overflow", told.declared.get(queue.name, {}).get("x-overflow", "drop-head"))
        cure = _without_policy(broker, told.policy_names.get(queue.name, ()))
        if losing := list(_losing(policy, overflow)):
            yield problem(f"a policy gives {queue.name} {', '.join(losing)}", queue.service, cure=cure)
        elif bounds := [f"{name}={policy[name]}" for name in _BOUNDS if name in policy]:
            told_of = f"a policy gives {queue.name} {', '.join(bounds)}: what is more waits in outboxes"
            yield advice(told_of, queue.service, cure=cure)
        else:
            yield fine("no policy loses messages", queue.service)


def _losing(policy: Mapping[str, object], overflow: object) -> Iterator[str]:
    """Yield what of a policy loses messages, or gives up what was only in hand."""
    yield from (f"{name}={policy[name]}" for name in _LOSING if name in policy)
    if overflow != _KEEPING and ("overflow" in policy or any(name in policy for name in _BOUNDS)):
        yield from (f"{name}={policy[name]}" for name in _BOUNDS if name in policy)
        yield f"overflow={overflow}"


def _without_policy(broker: BrokerFacts, names: tuple[str, ...]) -> str:
    commands = "; ".join(f"rabbitmqctl {each} -p {broker.vhost}" for each in names)
    return commands or f"rabbitmqctl list_policies -p {broker.vhost}; rabbitmqctl list_operator_policies"


@check("consumer", why="messages wait, and their sagas stand still")
def consumers(facts: Facts) -> Iterator[Seen]:
    """Somebody takes from each queue."""
    queues = [queue for _, queue in _there(facts)]
    for service in dict.fromkeys(queue.service for queue in queues):
        idle = [queue.name for queue in queues if queue.service == service and queue.consumers == 0]
        if idle:
            yield problem(f"nobody takes from {' and '.join(idle)}", service, cure=f"saga run {service}")
        else:
            yield fine("somebody takes from both queues", service)
