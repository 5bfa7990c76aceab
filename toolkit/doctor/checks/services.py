"""Checks of running services: readiness, tokens, clocks, and the versions of events."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import timedelta

from toolkit.configuration.environment import DEMO_TOKEN
from toolkit.declaration.contract import Contract, EventContract
from toolkit.doctor.facts import ClockFacts, Facts, ServiceFacts
from toolkit.doctor.findings import Observation, advice, check, fine, problem, unchecked
from toolkit.tracking.snapshot import lacks
from toolkit.urls import shown_url

#: Timeouts take minutes, and compare two machines' clocks.
_MOST_SKEW = timedelta(seconds=1)


def _answering(facts: Facts) -> Iterator[ServiceFacts]:
    return (each for each in facts.services if each.fault is None)


@check(
    "service ready",
    why="it consumes no message while a part that it needs is missing",
    cure="its log has the cause: `saga run {service}`, or `docker compose logs {service}`",
)
def readiness(facts: Facts) -> Iterator[Observation]:
    """Each service's `/readyz`. One that does not answer is unchecked."""
    for each in facts.services:
        missing = lacks(each.ready)
        if each.fault:
            yield unchecked(each.fault, each.name, f"`saga run {each.name}`, or correct its address in SAGA_SERVICES")
        elif missing:
            yield problem(f"{shown_url(each.url)} is without {', '.join(missing)}", each.name)
        else:
            yield fine("ready", each.name)


_RESTARTED = "start {service} with SAGA_API_TOKEN=$(openssl rand -hex 32)"


@check("service token", why="a client has to send the token to redrive, drop, abort and prune", cure=_RESTARTED)
def tokens(facts: Facts) -> Iterator[Observation]:
    """A request for a dead letter that does not exist, with the token that is set here; a request without one."""
    for each in _answering(facts):
        is_refused = each.dead_letter_answer == 401
        if each.is_open and not each.is_local:
            found = f"{shown_url(each.url)} is reached from other machines, and reading needs no token"
            yield problem(found, each.name)
        elif is_refused and facts.settings.api_token:
            cure = f"set SAGA_API_TOKEN here as {each.name} has it"
            yield problem(f"{shown_url(each.url)} refuses our SAGA_API_TOKEN", each.name, cure)
        elif is_refused:
            yield fine("requires a token; none is set here, so this shell only reads", each.name)
        else:
            yield fine("writing is off" if each.dead_letter_answer == 403 else "accepts our token", each.name)


@check("demo token", why="the token is public, so every client may write", cure=_RESTARTED, is_probe=True)
def demo_tokens(facts: Facts) -> Iterator[Observation]:
    """The same request with `demo-token-everybody-knows`, compose.yaml's default token.

    A problem if the service is on another machine, else advice.
    """
    for each in _answering(facts):
        if each.takes_demo_token:
            observe = advice if each.is_local else problem
            yield observe(f"{shown_url(each.url)} accepts the public token {DEMO_TOKEN}", each.name)
        else:
            yield fine("refuses the demo's token", each.name)


@check(
    "clock",
    why="timeouts compare two machines' clocks: steps refuse too early, or continue too long",
    cure="let the machine's clock follow NTP: `timedatectl set-ntp true; chronyc tracking`",
)
def clocks(facts: Facts) -> Iterator[Observation]:
    """The times of services (`/stats`), PostgreSQL (`clock_timestamp()`) and the broker's management (`Date`).

    Each lies between the request and its answer; a difference of surely more than a second is a problem. A `Date` has
    whole seconds, and may be one old. The clock that most others agree with counts as right.
    """
    if not (known := facts.clocks):
        return
    here = ClockFacts("this machine", timedelta(0), timedelta(0))
    everywhere = [here, *known]
    # Without a majority this machine counts as right.
    right = max(everywhere, key=lambda clock: sum(_offset(clock, each) <= _MOST_SKEW for each in everywhere))
    wrong = [clock for clock in everywhere if _offset(clock, right) > _MOST_SKEW]
    for clock in wrong:
        yield _skewed(clock, right, {each.name for each in facts.services})
    if not wrong:
        yield fine(f"{', '.join(clock.whose for clock in known)} and this machine agree")


def _offset(one: ClockFacts, other: ClockFacts) -> timedelta:
    """Return the smallest possible difference of two clocks."""
    return max(one.least - other.most, other.least - one.most, timedelta(0))


def _skewed(clock: ClockFacts, right: ClockFacts, services: set[str]) -> Observation:
    apart = _offset(clock, right).total_seconds()
    way = "ahead of" if clock.least > right.most else "behind"
    found = f"the clock of {clock.whose} is {apart:.0f} s or more {way} that of {right.whose}"
    return problem(found, clock.whose if clock.whose in services else None)


@check(
    "event version",
    why="the older service can't read the newer one's events, and they become dead letters",
    cure="build all of them with the same events; changed fields need a new version",
)
def event_versions(facts: Facts) -> Iterator[Observation]:
    """The contracts of all services (`/contract`, else the code here): each event has one version and one schema."""
    contracts = _current(facts)
    differing = 0
    for name, known in sorted(_by_event(contracts).items()):
        versions = {event.version for event in known.values()}
        if len(versions) > 1:
            shown = ", ".join(f"{event.version} in {service}" for service, event in known.items())
            oldest = min(known, key=lambda service: known[service].version)
            yield problem(
                f"{name} is version {shown}", oldest, f"build {oldest} with the others' events, and restart it"
            )
        elif len({repr(event.json_schema) for event in known.values()}) > 1:
            yield problem(f"{name} has one version, {versions.pop()}, and different fields in {', '.join(known)}")
        else:
            continue
        differing += 1
    if len(contracts) > 1 and not differing:
        yield fine(f"{', '.join(contracts)} have the same events")


def _current(facts: Facts) -> Mapping[str, Contract]:
    """Return the contracts, without those of services that do not answer: the code here may be newer."""
    silent = {each.name for each in facts.services if each.fault}
    return {name: contract for name, contract in facts.contracts.items() if name not in silent}


def _by_event(contracts: Mapping[str, Contract]) -> Mapping[str, Mapping[str, EventContract]]:
    found: dict[str, dict[str, EventContract]] = defaultdict(dict)
    for service, contract in contracts.items():
        for name, event in contract.events.items():
            found[name][service] = event
    return found


@check(
    "release",
    why="two releases of the toolkit side by side are for the minutes of an upgrade",
    cure="upgrade the older services",
)
def releases(facts: Facts) -> Iterator[Observation]:
    """The same contracts: all services have the same release of the toolkit."""
    by_release: dict[str, list[str]] = defaultdict(list)
    for service, contract in _current(facts).items():
        by_release[contract.toolkit_version].append(service)
    if len(by_release) > 1:
        shown = "; ".join(f"{release}: {', '.join(names)}" for release, names in sorted(by_release.items()))
        yield advice(f"services have different releases: {shown}")
    else:
        yield from (fine(f"{', '.join(names)} at {release}") for release, names in by_release.items())
