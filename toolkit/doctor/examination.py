"""The examination: gather all facts at once, then run the checks on them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from toolkit.configuration.settings import Settings
from toolkit.declaration.contract import Contract, contract_of
from toolkit.doctor.checks.registry import CHECKS
from toolkit.doctor.facts import BrokerFacts, Facts
from toolkit.doctor.findings import Finding
from toolkit.doctor.probes.broker import ask_broker, with_management
from toolkit.doctor.probes.databases import ask_database
from toolkit.doctor.probes.logins import open_logins
from toolkit.doctor.probes.management import ask_management
from toolkit.doctor.probes.services import ask_service
from toolkit.doctor.probes.unroutable_messages import publish_probes
from toolkit.doctor.targets import Target
from toolkit.errors import UnreachableError


async def examine(
    targets: Sequence[Target],
    settings: Settings,
    environment: Mapping[str, str],
    *,
    management_url: str | None = None,
    is_probing: bool = False,
) -> list[Finding]:
    """Return the findings of all checks, fine ones included; `is_probing` tries passwords and publishes messages."""
    broker, databases, services, contracts = await asyncio.gather(
        _broker(targets, settings, management_url, is_probing=is_probing),
        asyncio.gather(*(ask_database(each, is_probing=is_probing) for each in targets if each.database_url)),
        asyncio.gather(*(ask_service(each, settings, is_probing=is_probing) for each in targets if each.url)),
        asyncio.gather(*(_contract(each, settings) for each in targets)),
    )
    facts = Facts(
        settings=settings,
        environment=environment,
        services=tuple(services),
        contracts={each.name: contract for each, contract in zip(targets, contracts, strict=True) if contract},
        databases=tuple(databases),
        broker=broker,
    )
    checks = [each for each in CHECKS if is_probing or not each.is_probe]
    return [finding for check in checks for finding in check.findings(facts)]


async def _broker(
    targets: Sequence[Target], settings: Settings, management_url: str | None, *, is_probing: bool
) -> BrokerFacts | None:
    if settings.broker_url == "embedded":
        return None
    names = [each.name for each in targets]
    broker = await ask_broker(settings, names)
    if broker.fault:
        return broker
    broker = with_management(broker, await ask_management(management_url, settings, broker), settings)
    if not is_probing:
        return broker
    broker = replace(broker, open_logins=await open_logins(settings.broker_url, broker.login, names))
    has_alarm = broker.management is not None and bool(broker.management.alarms)
    if settings.exchange in broker.exchange_faults or has_alarm:
        return broker  # the broker would answer no message
    probe, large_probe = await publish_probes(settings)
    return replace(broker, probe=probe, large_probe=large_probe)


async def _contract(target: Target, settings: Settings) -> Contract | None:
    if target.url and target.client:
        try:
            return await target.client.contract()
        except UnreachableError:
            pass  # the check "service ready" reports it
    return contract_of(target.declared, settings) if target.declared else None
