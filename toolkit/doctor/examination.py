"""The examination: first ask all there is, at once; then let each check judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from toolkit.configuration.settings import Settings
from toolkit.declaration.contract import Contract
from toolkit.doctor.checks.registry import CHECKS
from toolkit.doctor.facts import BrokerFacts, DatabaseFacts, Facts, ServiceFacts
from toolkit.doctor.findings import Finding
from toolkit.doctor.probes.broker import ask_broker, filled_in
from toolkit.doctor.probes.databases import ask_database
from toolkit.doctor.probes.logins import open_logins
from toolkit.doctor.probes.management import ask_management
from toolkit.doctor.probes.services import ask_service
from toolkit.doctor.probes.unroutable_messages import probes
from toolkit.doctor.targets import Target
from toolkit.errors import UnreachableError

Say = Callable[[str], None]


async def examine(
    targets: Sequence[Target],
    settings: Settings,
    environment: Mapping[str, str],
    *,
    management_url: str | None = None,
    say: Say = lambda _: None,
) -> list[Finding]:
    """Return what all checks find, those that are fine included; `say` is told what is being asked."""
    facts = await gather(targets, settings, environment, management_url=management_url, say=say)
    return [finding for check in CHECKS for finding in check.findings(facts)]


async def gather(
    targets: Sequence[Target],
    settings: Settings,
    environment: Mapping[str, str],
    *,
    management_url: str | None,
    say: Say,
) -> Facts:
    """Ask the broker, the databases and the services, all at once."""
    broker, databases, services, contracts = await asyncio.gather(
        _broker(targets, settings, management_url, say),
        _databases(targets, say),
        _services(targets, settings, say),
        _contracts(targets),
    )
    return Facts(
        settings=settings,
        environment=environment,
        services=services,
        contracts=contracts,
        databases=databases,
        broker=broker,
    )


async def _broker(
    targets: Sequence[Target], settings: Settings, management_url: str | None, say: Say
) -> BrokerFacts | None:
    if settings.broker_url == "embedded":
        return None
    names = [each.name for each in targets]
    say("asking the broker")
    broker = await ask_broker(settings, names)
    if broker.fault:
        return broker
    say("asking the broker's management")
    broker = replace(broker, management=await ask_management(management_url, settings, broker))
    say("trying well-known passwords")
    broker = replace(broker, open_logins=await open_logins(settings.broker_url, broker.login, names))
    say("sending messages to nobody")
    return await _probed(filled_in(broker, settings), settings)


async def _probed(broker: BrokerFacts, settings: Settings) -> BrokerFacts:
    """Send messages to nobody, unless it is known that none can be sent."""
    has_alarm = broker.management is not None and bool(broker.management.alarms)
    if broker.exchange_fault or has_alarm:
        return broker
    probe, big_probe = await probes(settings)
    return replace(broker, probe=probe, big_probe=big_probe)


async def _databases(targets: Sequence[Target], say: Say) -> tuple[DatabaseFacts, ...]:
    say("asking the databases")
    return tuple(
        await asyncio.gather(
            *(ask_database(each.name, each.database_url, each.declared) for each in targets if each.database_url)
        )
    )


async def _services(targets: Sequence[Target], settings: Settings, say: Say) -> tuple[ServiceFacts, ...]:
    say("asking the services")
    return tuple(await asyncio.gather(*(ask_service(each.name, each.url, settings) for each in targets if each.url)))


async def _contracts(targets: Sequence[Target]) -> dict[str, Contract]:
    """Return what each service hears and says; what runs counts more than what lies here."""
    told = await asyncio.gather(*(_contract(each) for each in targets))
    return {subject.name: contract for subject, contract in zip(targets, told, strict=True) if contract}


async def _contract(subject: Target) -> Contract | None:
    if subject.url and subject.client:
        try:
            return await subject.client.contract()
        except UnreachableError:
            pass  # that it does not answer is found elsewhere
    return Contract.of(subject.declared) if subject.declared else None
