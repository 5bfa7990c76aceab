"""Whether the broker is one that sagas can rely on, and lets us do what we have to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from toolkit.doctor.facts import BrokerFacts, Echo, Facts, ManagementFacts
from toolkit.doctor.findings import Seen, advice, check, fine, problem, unchecked
from toolkit.urls import shown_url

#: The first release that is still maintained, and that limits deliveries by itself.
_OLDEST = (4, 0)
HOW_TO_ASK = (
    "switch the API on (rabbitmq-plugins enable rabbitmq_management), give a login the tag monitoring "
    "(rabbitmqctl set_user_tags NAME monitoring), and set SAGA_MANAGEMENT_URL=http://NAME:PASSWORD@HOST:15672"
)


def answering(facts: Facts) -> Iterator[BrokerFacts]:
    """Yield the broker, if there is one and it answers."""
    if facts.broker and not facts.broker.fault:
        yield facts.broker


@check("broker", why="no event goes from one service to another without it")
def broker(facts: Facts) -> Iterator[Seen]:
    """The broker answers, and lets us in."""
    if facts.broker and facts.broker.fault:
        yield unchecked(facts.broker.fault, cure="start the broker, or mend SAGA_BROKER_URL; then ask again")
    for each in answering(facts):
        yield fine(f"{each.address} lets {each.login} in to {each.vhost}")


@check(
    "broker version",
    why="older ones are maintained no more; before 3.10 what is given up may be lost on its way to the dead letters",
)
def version(facts: Facts) -> Iterator[Seen]:
    """The broker is not too old."""
    for each in answering(facts):
        if tuple(int(part) for part in re.findall(r"\d+", each.version)[:2]) < _OLDEST:
            yield problem(f"RabbitMQ {each.version} is too old", cure="upgrade to RabbitMQ 4 or newer")
        else:
            yield fine(f"RabbitMQ {each.version}")


@check("broker password", why="whoever reaches the broker can read and forge every event")
def passwords(facts: Facts) -> Iterator[Seen]:
    """No login has a password that anybody would guess."""
    for each in answering(facts):
        say = advice if each.is_local else problem
        for login in each.open_logins:
            cure = f"rabbitmqctl change_password {login} NEW_PASSWORD"
            unused = (
                f", or rabbitmqctl delete_user {login}" if login != each.login else ", and say it in SAGA_BROKER_URL"
            )
            yield say(f"{login} gets in by the password {login}", cure=cure + unused)
        if not each.open_logins:
            yield fine("no well-known password gets in")


@check("exchange", why="events go through it; on one of another kind the broker checks no key, or services can't start")
def exchanges(facts: Facts) -> Iterator[Seen]:
    """Both exchanges are there, as the services declare them."""
    for each in answering(facts):
        faults = [fault for fault in (each.exchange_fault, each.dead_exchange_fault) if fault]
        for fault in faults:
            yield problem(
                fault,
                cure="delete one of another kind (rabbitmqadmin delete exchange name=NAME); a service that starts makes"
                " it, if its login may, or else an import of what `saga topology --permissions -o json` prints",
            )
        if not faults:
            yield fine("both exchanges are as declared")


@check("right to publish", why="what may not be published stays in the outbox, and its saga stands still")
def rights(facts: Facts) -> Iterator[Seen]:
    """This login may write to the exchange."""
    for each in answering(facts):
        if each.probe and each.probe.echo is Echo.FORBIDDEN:
            set_all = f"rabbitmqctl set_permissions -p {each.vhost} {each.login} '.*' '.*' '.*'"
            cure = f"{set_all}, or what `saga topology --permissions` shows for it, `saga.Probe` included"
            yield problem(f"the login {each.login} may not publish: {each.probe.told}", cure=cure)
        elif each.probe and each.probe.echo is not Echo.SILENCE:
            yield fine(f"the login {each.login} may publish")


@check("returns", why="an event that no queue is bound to is lost, and its publisher takes it for sent")
def returns(facts: Facts) -> Iterator[Seen]:
    """A message that nobody listens to comes back."""
    for each in answering(facts):
        if each.probe is None or each.probe.echo is Echo.FORBIDDEN:
            continue
        if each.probe.echo is Echo.RETURNED:
            yield fine("a message to nobody came back")
        elif each.probe.echo is Echo.SWALLOWED:
            taker = each.management.taker if each.management else None
            yield problem(
                f"{each.probe.told}: look at {taker or 'alternate exchanges'}, and for queues that are bound to #",
                cure="take the alternate-exchange from the exchange or its policy (rabbitmqctl list_policies), and "
                "unbind what listens to #",
            )
        else:
            yield problem(
                f"a message to nobody was neither confirmed nor returned: {each.probe.told}",
                cure="rabbitmq-diagnostics alarms: a broker that is short of memory or disk takes nothing",
            )


@check("message size", why="an event as big as that would never leave its outbox")
def message_size(facts: Facts) -> Iterator[Seen]:
    """The broker takes what the services would."""
    for each in answering(facts):
        if each.big_probe is None:
            continue
        limit = facts.settings.max_message_bytes
        if each.big_probe.echo is Echo.TOO_LARGE:
            yield problem(
                f"the broker does not take {limit} bytes, which SAGA_MAX_MESSAGE_BYTES allows: {each.big_probe.told}",
                cure=f"raise max_message_size in rabbitmq.conf to {limit} at least, or lower SAGA_MAX_MESSAGE_BYTES",
            )
        else:
            yield fine(f"the broker takes {limit} bytes")


@check("broker alarm", why="a broker that is short of memory or disk takes no event until it has some again")
def alarms(facts: Facts) -> Iterator[Seen]:
    """No node of the broker raises an alarm."""
    for each in answering(facts):
        told = management_of(each)
        if told is None or told.alarms is None:
            yield unchecked("alarms were not asked for: " + why_not(each), cure=HOW_TO_ASK)
            continue
        for alarm in told.alarms:
            yield problem(alarm, cure="rabbitmq-diagnostics alarms, then give it memory or disk, or empty its queues")
        if not told.alarms:
            yield fine("no node is short of memory or disk")


def management_of(broker: BrokerFacts) -> ManagementFacts | None:
    """Return what the management API told, if it did."""
    return broker.management if broker.management and broker.management.fault is None else None


def why_not(broker: BrokerFacts) -> str:
    """Return why the management API told nothing."""
    told = broker.management
    if told is None or told.fault is None:
        return "the broker does not tell"
    return f"the management API at {shown_url(told.url)}: {told.fault}"
