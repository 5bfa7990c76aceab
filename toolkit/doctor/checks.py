"""All checks, in the order in which somebody would look."""

from __future__ import annotations

from toolkit.doctor import (
    broker_checks,
    database_checks,
    environment_checks,
    queue_checks,
    routing_checks,
    schema_checks,
    service_checks,
)
from toolkit.doctor.facts import Facts
from toolkit.doctor.findings import Check

CHECKS: tuple[Check[Facts], ...] = (
    environment_checks.unknown_settings,
    environment_checks.crash_points,
    environment_checks.api_token,
    broker_checks.broker,
    broker_checks.version,
    broker_checks.passwords,
    broker_checks.exchanges,
    broker_checks.rights,
    broker_checks.returns,
    broker_checks.message_size,
    broker_checks.alarms,
    queue_checks.queues,
    queue_checks.queue_types,
    queue_checks.dead_letter_exchanges,
    queue_checks.delivery_limits,
    queue_checks.arguments,
    queue_checks.policies,
    queue_checks.consumers,
    routing_checks.bindings,
    routing_checks.former_bindings,
    routing_checks.former_queues,
    routing_checks.unroutable_events,
    database_checks.databases,
    database_checks.sqlite_durability,
    database_checks.postgres_durability,
    database_checks.disk_space,
    schema_checks.tables,
    schema_checks.columns,
    schema_checks.indexes,
    schema_checks.undeclared_steps,
    database_checks.connections,
    database_checks.passwords,
    service_checks.readiness,
    service_checks.tokens,
    service_checks.clocks,
    service_checks.event_versions,
    service_checks.releases,
)
