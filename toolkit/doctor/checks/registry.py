"""All checks, in the order in which somebody would look."""

from __future__ import annotations

from toolkit.doctor.checks import broker, database, environment, queues, routing, schema, services
from toolkit.doctor.facts import Facts
from toolkit.doctor.findings import Check

CHECKS: tuple[Check[Facts], ...] = (
    environment.unknown_settings,
    environment.failpoints_armed,
    environment.api_token,
    broker.broker,
    broker.version,
    broker.passwords,
    broker.exchanges,
    broker.rights,
    broker.returns,
    broker.message_size,
    broker.alarms,
    queues.queues,
    queues.queue_types,
    queues.dead_letter_exchanges,
    queues.delivery_limits,
    queues.arguments,
    queues.policies,
    queues.consumers,
    routing.bindings,
    routing.former_bindings,
    routing.former_queues,
    routing.unroutable_events,
    database.databases,
    database.sqlite_durability,
    database.postgres_durability,
    database.disk_space,
    schema.tables,
    schema.columns,
    schema.indexes,
    schema.undeclared_steps,
    database.connections,
    database.passwords,
    services.readiness,
    services.tokens,
    services.clocks,
    services.event_versions,
    services.releases,
)
