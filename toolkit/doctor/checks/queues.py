"""Checks of each service's queues: they exist, keep their messages, and have a consumer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from toolkit.doctor.checks.broker import ENABLE_MANAGEMENT, answering, management_of
from toolkit.doctor.facts import BrokerFacts, Difference, Facts, QueueFacts
from toolkit.doctor.findings import Observation, advice, check, fine, problem, unchecked

#: Keys of a policy that remove messages or the queue; of two delivery limits the lower one holds.
_LOSING = ("message-ttl", "expires", "delivery-limit")
#: Keys of a policy that bound a queue, and the overflow that loses nothing: the publishers keep the message.
_BOUNDS, _KEEPING = ("max-length", "max-length-bytes"), "reject-publish"


def existing(facts: Facts) -> Iterator[tuple[BrokerFacts, QueueFacts]]:
    """Yield each existing queue of the services, with its broker."""
    return ((broker, queue) for broker in answering(facts) for queue in broker.queues if queue.exists)


@check(
    "queue",
    why="events for the service return to their publishers, and wait in the outboxes",
    cure="`saga run {service}`, with SAGA_EXCHANGE={exchange}",
)
def queues(facts: Facts) -> Iterator[Observation]:
    """The two queues of each service: they exist."""
    for broker in answering(facts):
        for queue in broker.queues:
            if queue.exists:
                yield fine("both queues exist", queue.service)
            else:
                fields = {"exchange": facts.settings.exchange}
                yield problem(f"there is no queue {queue.name}", queue.service, fields=fields)


@check(
    "queue arguments",
    why="the service can't declare its queue (PRECONDITION_FAILED) and does not start; a classic queue is lost with "
    "its node, one without a dead-letter exchange drops rejected messages, outages spend a lower delivery limit",
    cure="stop {service}, let {queue} run empty or move its messages, then "
    "`rabbitmqctl delete_queue -p {vhost} {queue}`; the service declares it at its start",
)
def arguments(facts: Facts) -> Iterator[Observation]:
    """All arguments of each queue: they are as its service declares them.

    The management API has all of them; over AMQP the broker names the first difference, to a login that may declare.
    """
    for broker, queue in existing(facts):
        if queue.differences is None:
            found = f"the arguments of {queue.name} are unknown: {queue.fault}"
            yield unchecked(found, queue.service, cure=ENABLE_MANAGEMENT)
        elif queue.differences:
            found = f"{queue.name}: {'; '.join(map(_shown, queue.differences))}"
            yield problem(found, queue.service, fields={"queue": queue.name, "vhost": broker.vhost})
        else:
            yield fine("queues are as declared", queue.service)


def _shown(difference: Difference) -> str:
    return f"{difference.argument} is {difference.found or 'not set'}, not {difference.wanted or 'unset'}"


@check(
    "queue policy",
    why="a policy overrides the service's declaration: events disappear before their service consumes them, or wait in "
    "outboxes",
    cure="`rabbitmqctl clear_policy` or `clear_operator_policy`; `rabbitmqctl list_policies -p {vhost}` and "
    "`list_operator_policies` list them",
)
def policies(facts: Facts) -> Iterator[Observation]:
    """Each queue's effective policy in the management API, that of users and operators in one.

    `message-ttl`, `expires`, `delivery-limit`, and a `max-length` or `max-length-bytes` with another `overflow` than
    `reject-publish` lose messages; with `reject-publish` they get advice, since the surplus waits in outboxes.
    """
    for broker, queue in existing(facts):
        management = management_of(broker)
        if management is None or (managed := management.queues.get(queue.name)) is None:
            continue  # the check "binding" reports it
        policy = managed.policy
        overflow = policy.get("overflow", managed.declared.get("x-overflow", "drop-head"))
        cure = "; ".join(f"rabbitmqctl {each} -p {broker.vhost}" for each in managed.clear_commands) or None
        fields = {"vhost": broker.vhost}
        if losing := list(_losing(policy, overflow)):
            yield problem(f"a policy sets {', '.join(losing)} of {queue.name}", queue.service, cure, fields)
        elif bounds := [f"{name}={policy[name]}" for name in _BOUNDS if name in policy]:
            found = f"a policy sets {', '.join(bounds)} of {queue.name}: the surplus waits in outboxes"
            yield advice(found, queue.service, cure, fields)
        else:
            yield fine("no policy loses messages", queue.service)


def _losing(policy: Mapping[str, object], overflow: object) -> Iterator[str]:
    """Yield the settings of a policy that lose messages, or dead-letter redelivered ones."""
    yield from (f"{name}={policy[name]}" for name in _LOSING if name in policy)
    if overflow != _KEEPING and ("overflow" in policy or any(name in policy for name in _BOUNDS)):
        yield from (f"{name}={policy[name]}" for name in _BOUNDS if name in policy)
        yield f"overflow={overflow}"


@check("consumer", why="messages wait, and their sagas are stuck", cure="`saga run {service}`")
def consumers(facts: Facts) -> Iterator[Observation]:
    """The number of consumers of each queue."""
    found = [queue for _, queue in existing(facts)]
    for service in dict.fromkeys(queue.service for queue in found):
        idle = [queue.name for queue in found if queue.service == service and queue.consumers == 0]
        if idle:
            yield problem(f"no consumer of {' and '.join(idle)}", service)
        else:
            yield fine("both queues have a consumer", service)
