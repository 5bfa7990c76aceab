"""Whether running services are ready, agree about time, and about what an event is."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta

from toolkit.configuration.environment import DEMO_TOKEN
from toolkit.declaration.contract import Contract, EventContract
from toolkit.doctor.facts import ClockFacts, Facts, ServiceFacts
from toolkit.doctor.findings import Seen, advice, check, fine, problem, unchecked
from toolkit.tracking.snapshot import lacks
from toolkit.urls import shown_url

#: Timeouts are minutes, and compare one machine's clock with another's.
_MOST_SKEW = timedelta(seconds=1)


def _answering(facts: Facts) -> Iterator[ServiceFacts]:
    return (each for each in facts.services if each.fault is None)


@check("service ready", why="it takes nothing while a part that it needs is missing")
def readiness(facts: Facts) -> Iterator[Seen]:
    """Each service answers, and has all that it needs."""
    for each in facts.services:
        missing = lacks(each.ready)
        if each.fault:
            yield unchecked(each.fault, each.name, cure=f"saga run {each.name}, or mend its address in SAGA_SERVICES")
        elif missing:
            yield problem(
                f"{shown_url(each.url)} is without {', '.join(missing)}",
                each.name,
                cure=f"its log says why: saga run {each.name}, or docker compose logs {each.name}",
            )
        else:
            yield fine("ready", each.name)


@check("service token", why="redrive, drop, abort and prune have to be shown it")
def tokens(facts: Facts) -> Iterator[Seen]:
    """Each service that others reach has a token, and ours is the right one."""
    for each in _answering(facts):
        if each.takes_demo_token:
            say = advice if each.is_local else problem
            yield say(
                f"{shown_url(each.url)} takes the token {DEMO_TOKEN}, which everybody knows",
                each.name,
                cure=f"start {each.name} with SAGA_API_TOKEN=$(openssl rand -hex 32)",
            )
        elif each.is_open and not each.is_local:
            yield problem(
                f"{shown_url(each.url)} is reached from elsewhere, and lets anybody read",
                each.name,
                cure=f"start {each.name} with SAGA_API_TOKEN=$(openssl rand -hex 32)",
            )
        elif each.dead_letter_answer == 401 and facts.settings.api_token:
            yield problem(
                f"{shown_url(each.url)} does not take our SAGA_API_TOKEN",
                each.name,
                cure=f"export SAGA_API_TOKEN as {each.name} has it",
            )
        elif each.dead_letter_answer == 401:
            yield fine("wants a token; none is set here, so this shell only reads", each.name)
        else:
            yield fine("writing is switched off" if each.dead_letter_answer == 403 else "takes our token", each.name)


@check("clock", why="timeouts compare one machine's time with another's: steps refuse too early, or go on too long")
def clocks(facts: Facts) -> Iterator[Seen]:
    """All clocks agree within a second, as far as their answers tell."""
    known = facts.clocks
    if not known:
        return
    here = ClockFacts("this machine", timedelta(0), timedelta(0))
    # What most others agree with is taken to be right; this machine, where nobody has a majority.
    right = max([here, *known], key=lambda clock: sum(_apart(clock, each) <= _MOST_SKEW for each in [here, *known]))
    wrong = [clock for clock in [here, *known] if _apart(clock, right) > _MOST_SKEW]
    for clock in wrong:
        yield _skewed(clock, right, {each.name for each in facts.services})
    if not wrong:
        yield fine(f"{', '.join(clock.whose for clock in known)} and this machine agree")


def _apart(one: ClockFacts, other: ClockFacts) -> timedelta:
    """Return how far two clocks are apart at least."""
    return max(one.least - other.most, other.least - one.most, timedelta(0))


def _skewed(clock: ClockFacts, right: ClockFacts, services: set[str]) -> Seen:
    apart = _apart(clock, right).total_seconds()
    way = "ahead of" if clock.least > right.most else "behind"
    return problem(
        f"the clock of {clock.whose} is {apart:.0f} s or more {way} that of {right.whose}",
        clock.whose if clock.whose in services else None,
        cure="let the machine's clock follow NTP: timedatectl set-ntp true; chronyc tracking",
    )


@check("event version", why="one service writes what the other can't read: such events become dead letters")
def event_versions(facts: Facts) -> Iterator[Seen]:
    """All services mean the same by an event's name."""
    unlike, contracts = 0, _told(facts)
    for name, known in sorted(_by_event(contracts).items()):
        versions = {event.version for event in known.values()}
        if len(versions) > 1:
            told = ", ".join(f"{event.version} in {service}" for service, event in known.items())
            oldest = min(known, key=lambda service: known[service].version)
            unlike += 1
            yield problem(
                f"{name} is version {told}",
                oldest,
                cure=f"bring {oldest} up to date: build it with the same events as the others, and start it again",
            )
        elif len({repr(event.json_schema) for event in known.values()}) > 1:
            unlike += 1
            yield problem(
                f"{name} has one version, {versions.pop()}, and different fields in {', '.join(known)}",
                cure="build all of them with the same events; a change of fields needs a new version",
            )
    if len(contracts) > 1 and not unlike:
        yield fine(f"{', '.join(contracts)} mean the same by every event")


def _told(facts: Facts) -> Mapping[str, Contract]:
    """Return the contracts but for those of services that were asked and did not answer: the code here may be newer."""
    silent = {each.name for each in facts.services if each.fault}
    return {name: contract for name, contract in facts.contracts.items() if name not in silent}


def _by_event(contracts: Mapping[str, Contract]) -> Mapping[str, Mapping[str, EventContract]]:
    found: dict[str, dict[str, EventContract]] = defaultdict(dict)
    for service, contract in contracts.items():
        for name, event in contract.events.items():
            found[name][service] = event
    return found


@check("release", why="two releases of the toolkit side by side are for the minutes of an upgrade")
def releases(facts: Facts) -> Iterator[Seen]:
    """All services run the same release of the toolkit."""
    by_release: dict[str, list[str]] = defaultdict(list)
    for service, contract in _told(facts).items():
        by_release[contract.toolkit_version].append(service)
    if len(by_release) > 1:
        told = "; ".join(f"{release}: {', '.join(names)}" for release, names in sorted(by_release.items()))
        yield advice(f"services run different releases: {told}", cure="bring the older ones up to date")
    else:
        yield from (fine(f"{', '.join(names)} at {release}") for release, names in by_release.items())
