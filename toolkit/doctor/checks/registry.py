"""All checks, by section, in the order in which a person would look."""

from __future__ import annotations

from types import ModuleType

from toolkit.doctor.checks import broker, database, environment, queues, routing, schema, services
from toolkit.doctor.findings import Check


def _checks(*modules: ModuleType) -> tuple[Check, ...]:
    return tuple(each for module in modules for each in vars(module).values() if isinstance(each, Check))


SECTIONS: dict[str, tuple[Check, ...]] = {
    "The environment here": _checks(environment),
    "The broker": _checks(broker),
    "Queues and bindings": _checks(queues, routing),
    "Databases": _checks(database, schema),
    "Running services": _checks(services),
}
CHECKS: tuple[Check, ...] = tuple(check for checks in SECTIONS.values() for check in checks)
