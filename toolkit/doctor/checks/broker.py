"""Checks of the broker, and of this login's rights there."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.doctor.facts import BrokerFacts, Facts, ManagementFacts, ProbeOutcome
from toolkit.doctor.findings import Observation, advice, check, fine, problem, unchecked
from toolkit.urls import shown_url

#: The first release that is still maintained.
_OLDEST = (4, 0)
ENABLE_MANAGEMENT = (
    "enable the API (`rabbitmq-plugins enable rabbitmq_management`), give a login the tag monitoring "
    "(`rabbitmqctl set_user_tags NAME monitoring`), and set SAGA_MANAGEMENT_URL=http://NAME:PASSWORD@HOST:15672"
)


def answering(facts: Facts) -> Iterator[BrokerFacts]:
    """Yield the broker, if it answers."""
    if facts.broker and not facts.broker.fault:
        yield facts.broker


@check(
    "broker",
    why="no event reaches another service without it",
    cure="start the broker, or correct SAGA_BROKER_URL",
)
def broker(facts: Facts) -> Iterator[Observation]:
    """A connection to `SAGA_BROKER_URL`. Without it the other checks of the broker have no facts."""
    if facts.broker and facts.broker.fault:
        yield unchecked(facts.broker.fault)
    for each in answering(facts):
        yield fine(f"{each.address} accepts {each.login} at {each.vhost}")


@check(
    "broker version",
    why="older releases are not maintained; before 3.10 messages may be lost on their way to the dead letters",
    cure="upgrade to RabbitMQ 4 or newer",
)
def version(facts: Facts) -> Iterator[Observation]:
    """The version in the broker's greeting: 4.0 or newer."""
    for each in answering(facts):
        is_old = tuple(int(part) for part in re.findall(r"\d+", each.version)[:2]) < _OLDEST
        yield (problem if is_old else fine)(f"RabbitMQ {each.version}{' is too old' if is_old else ''}")


@check(
    "broker password",
    why="every client that reaches the broker can read and forge every event",
    cure="`rabbitmqctl change_password {login} NEW_PASSWORD`, or `rabbitmqctl delete_user {login}`",
    is_probe=True,
)
def passwords(facts: Facts) -> Iterator[Observation]:
    """Logins whose password is their name: `guest`, `admin`, `saga`, the login of `SAGA_BROKER_URL`, each service's.

    A problem if the broker is on another machine, else advice.
    """
    for each in answering(facts):
        for login in each.open_logins:
            cure = f"`rabbitmqctl change_password {login} NEW_PASSWORD`, and set it in SAGA_BROKER_URL"
            observe = advice if each.is_local else problem
            yield observe(
                f"the password of {login} is {login}",
                cure=cure if login == each.login else None,
                fields={"login": login},
            )
        if not each.open_logins:
            yield fine("no well-known password is accepted")


@check(
    "exchange",
    why="events go through it; with another type the broker checks no routing key, or services can't start",
    cure="delete an exchange of another type (`rabbitmqadmin delete exchange name=NAME`); a service whose login may "
    "configure it creates it at its start, else import the document of `saga topology --permissions -o json`",
)
def exchanges(facts: Facts) -> Iterator[Observation]:
    """The two shared exchanges: each is declared as services declare it, which the broker refuses for another type.

    If this login may not declare them, the management API has the type.
    """
    for each in answering(facts):
        yield from map(problem, each.exchange_faults.values())
        if not each.exchange_faults:
            yield fine("both exchanges are as declared")


@check(
    "right to publish",
    why="an event that may not be published stays in the outbox, and its saga is stuck",
    cure="`rabbitmqctl set_permissions -p {vhost} {login} '.*' '.*' '.*'`, or the rights that "
    "`saga topology --permissions` shows for it, `saga.Probe` included",
    is_probe=True,
)
def rights(facts: Facts) -> Iterator[Observation]:
    """A message with the routing key `saga.Probe`, published as services publish, by the login of `SAGA_BROKER_URL`.

    A service whose own login lacks a right logs that with the cure, and is not ready.
    """
    for each in answering(facts):
        if each.probe and each.probe.outcome is ProbeOutcome.FORBIDDEN:
            fields = {"vhost": each.vhost, "login": each.login}
            yield problem(f"the login {each.login} may not publish: {each.probe.answer}", fields=fields)
        elif each.probe and each.probe.outcome is not ProbeOutcome.UNANSWERED:
            yield fine(f"the login {each.login} may publish")


@check(
    "returns",
    why="an event that no queue is bound to is lost, and its publisher counts it as sent",
    cure="remove the alternate exchange from the exchange or its policy (`rabbitmqctl list_policies`), and unbind "
    "queues from `#`",
    is_probe=True,
)
def returns(facts: Facts) -> Iterator[Observation]:
    """The same message: the broker returns it, unless an alternate exchange or a queue bound to `#` takes it."""
    for each in answering(facts):
        if each.probe is None or each.probe.outcome is ProbeOutcome.FORBIDDEN:
            continue
        if each.probe.outcome is ProbeOutcome.RETURNED:
            yield fine("an unroutable message returned")
        elif each.probe.outcome is ProbeOutcome.CONFIRMED:
            alternate = each.management.alternate if each.management else None
            yield problem(f"{each.probe.answer}: see {alternate or 'alternate exchanges'}, and queues bound to #")
        else:
            yield problem(
                f"an unroutable message was neither confirmed nor returned: {each.probe.answer}",
                cure="`rabbitmq-diagnostics alarms`: a broker that is short of memory or disk accepts no message",
            )


@check(
    "message size",
    why="an event of that size would never leave its outbox",
    cure="raise max_message_size in rabbitmq.conf to {limit} at least, or lower SAGA_MAX_MESSAGE_BYTES",
    is_probe=True,
)
def message_size(facts: Facts) -> Iterator[Observation]:
    """The same message once more, of the size `SAGA_MAX_MESSAGE_BYTES`."""
    limit = facts.settings.max_message_bytes
    for each in answering(facts):
        if each.large_probe and each.large_probe.outcome is ProbeOutcome.TOO_LARGE:
            found = f"the broker refuses {limit} bytes, which SAGA_MAX_MESSAGE_BYTES allows: {each.large_probe.answer}"
            yield problem(found, fields={"limit": limit})
        elif each.large_probe:
            yield fine(f"the broker accepts {limit} bytes")


@check(
    "broker alarm",
    why="a broker that is short of memory or disk accepts no event until it has enough again",
    cure="`rabbitmq-diagnostics alarms`; give the broker memory or disk, or empty its queues",
)
def alarms(facts: Facts) -> Iterator[Observation]:
    """The management API's health check of alarms."""
    for each in answering(facts):
        management = management_of(each)
        if management is None or management.alarms is None:
            yield unchecked(f"alarms are unknown: {why_unmanaged(each)}", cure=ENABLE_MANAGEMENT)
        elif management.alarms:
            yield from map(problem, management.alarms)
        else:
            yield fine("no node is short of memory or disk")


def management_of(broker: BrokerFacts) -> ManagementFacts | None:
    """Return the facts of the management API, if it answers."""
    return broker.management if broker.management and broker.management.fault is None else None


def why_unmanaged(broker: BrokerFacts) -> str:
    """Return why the facts of the management API are missing."""
    management = broker.management
    if management is None or management.fault is None:
        return "the broker does not report them"
    return f"the management API at {shown_url(management.url)}: {management.fault}"
