"""Finding the services that are declared below the current directory.

A service is the attribute `app` of `<package>.<name>.app`; the package is `services`, or what SAGA_PACKAGE names.
"""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Mapping
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from toolkit.cli.exit_codes import UsageError
from toolkit.errors import SettingsError

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.declaration.events import Saga
    from toolkit.declaration.service import Service


#: The package that holds the services, unless SAGA_PACKAGE names another.
DEFAULT_PACKAGE = "services"
#: The package of the examples; each is a package of services with a demonstration.
_EXAMPLES = "examples"
#: Where a wheel has both packages (hatch_build.py): they are found there by the names that they have in a checkout.
_BUNDLED = Path(__file__).parents[1] / "demos"


def package_name() -> str:
    """Return the package that holds the services."""
    return os.environ.get("SAGA_PACKAGE") or DEFAULT_PACKAGE


def discover(package: str) -> dict[str, Service]:
    """Return the services of a package by name.

    Raises:
        UsageError: there is no such package, no service in it, or two services have one name.
    """
    from toolkit.declaration.service import Service

    apps = _apps(package)
    found: dict[str, tuple[str, Service]] = {}
    for place, module in apps.items():
        app = getattr(module, "app", None)
        if not isinstance(app, Service):
            continue
        other, same = found.setdefault(app.name, (place, app))
        if same is not app:
            fault = f"two services are named {app.name!r}, at {other}.app:app and {place}.app:app"
            raise UsageError(f"{fault}: rename one, since queues and databases are named after it")
    if not found:
        reasons = "".join(f"; {each}" for each in passed_over(package))
        raise UsageError(
            f"the package {package!r} holds no services, which are the attributes app of {package}.<name>.app: "
            f"name the package that does in SAGA_PACKAGE{reasons}"
        )
    return {name: service for name, (_, service) in found.items()}


def passed_over(package: str) -> list[str]:
    """Return a sentence for each package in this one that holds no service, with the reason."""
    from toolkit.declaration.service import Service

    sentences = []
    for place, module in _apps(package).items():
        if isinstance(getattr(module, "app", None), Service):
            continue
        declared = [name for name, value in vars(module).items() if isinstance(value, Service)] if module else []
        if module is None:
            reason = "it has no module app"
        elif declared:
            reason = f"{place}.app has its Service under the name {declared[0]}: name it app"
        else:
            reason = f"{place}.app has no attribute app that is a Service"
        sentences.append(f"{place} counts as no service: {reason}")
    return sentences


def _apps(package: str) -> dict[str, ModuleType | None]:
    """Return the module app of each package in this one, by the package; None where it has none."""
    found = import_here(package)
    names = [each.name for each in pkgutil.iter_modules(getattr(found, "__path__", [])) if each.ispkg]
    places = [f"{package}.{name}" for name in names]
    return {place: import_module(f"{place}.app") if find_spec(f"{place}.app") else None for place in places}


def find_service(reference: str) -> Service:
    """Return the service of this name, or at `module:attribute`.

    Raises:
        UsageError: there is none; the text names those that exist.
    """
    if ":" in reference:
        return _at(reference)
    services = discover(package_name())
    if reference not in services:
        raise UsageError(f"there is no service {reference!r}; there are: {', '.join(sorted(services))}")
    return services[reference]


def find_demo(name: str | None) -> ModuleType:
    """Return the module with the demonstration of this example, or without a name of the services.

    Where there are none below the current directory, the wheel's are found.

    Raises:
        UsageError: there is none; the text names those that exist.
    """
    if name is None:
        return import_here(f"{package_name()}.demo", or_bundled=True)
    paths = import_here(_EXAMPLES, or_bundled=True).__path__
    names = sorted(each.name for each in pkgutil.iter_modules(paths) if find_spec(f"{_EXAMPLES}.{each.name}.demo"))
    if name not in names:
        raise UsageError(f"there is no example {name!r}; there are: {', '.join(names)}")
    return import_here(f"{_EXAMPLES}.{name}.demo")


def place_of_service(service: Service) -> tuple[str, str] | None:
    """Return the module and the attribute that hold a service; None if it was not declared at a module's top."""
    found = [
        (name, attribute)
        for name, module in sorted(sys.modules.items())
        for attribute, value in list(getattr(module, "__dict__", {}).items())
        if value is service and attribute.isidentifier()
    ]
    return min(found, key=lambda each: (each[1] != "app", not each[0].endswith(".app"), each), default=None)


def check_step_timeouts(settings: Settings, services: Mapping[str, Service]) -> None:
    """Check that SAGA_STEP_TIMEOUTS names steps of these services; one environment may serve all of them.

    Raises:
        SettingsError: it names another.
    """
    if any(service.orchestrators for service in services.values()):
        return  # the steps of a coordinator's plans are other services'
    steps = {step.name for service in services.values() for step in service.steps}
    if unknown := sorted(settings.step_timeouts.keys() - steps):
        raise SettingsError(
            f"SAGA_STEP_TIMEOUTS names {', '.join(unknown)}, and no service has such a step; "
            f"there are: {', '.join(sorted(steps))}"
        )


def check_step_reminders(settings: Settings, services: Mapping[str, Service]) -> None:
    """Check that SAGA_STEP_REMINDERS names steps that remind, and that each first reminder precedes the deadline.

    Raises:
        SettingsError: it names another step, or no reminder would ever come.
    """
    if any(service.orchestrators for service in services.values()):
        return  # as above
    steps = [step for service in services.values() for step in service.steps if step.remind]
    names = {step.name for step in steps}
    if unknown := sorted(settings.step_reminders.keys() - names):
        raise SettingsError(
            f"SAGA_STEP_REMINDERS names {', '.join(unknown)}, and no service has such a step that declares `remind`; "
            f"there are: {', '.join(sorted(names)) or 'none'}"
        )
    for step in steps:
        period, timeout = settings.step_reminders.get(step.name), settings.step_timeouts.get(step.name, step.timeout)
        if period and timeout and step.is_refusable and period >= timeout:
            raise SettingsError(
                f"SAGA_STEP_REMINDERS={period} for {step.name} is not allowed: "
                f"give less than the step's timeout, {timeout}"
            )


def check_logins(settings: Settings, services: Mapping[str, Service]) -> None:
    """Check that SAGA_LOGINS names owners of events of these services: events of one that is misspelt are not checked.

    Raises:
        SettingsError: it names another.
    """
    from toolkit.messaging.envelope import CONTROL_EVENTS

    emitted = (event for service in services.values() for event in service.emitted().values())
    consumed = (event for service in services.values() for event in service.consumed())
    coordinators = {service.name for service in services.values() if service.orchestrators}
    owners = {event.__owner__ for event in (*emitted, *consumed, *CONTROL_EVENTS)} | coordinators
    owners |= set(settings.asked_by.values())
    if unknown := sorted(settings.logins.keys() - owners):
        raise SettingsError(
            f"SAGA_LOGINS names {', '.join(unknown)}, and no event has such an owner; there are: "
            f"{', '.join(sorted(owners))}"
        )


def sagas_of(services: dict[str, Service]) -> list[Saga]:
    """Return the sagas that these services take part in."""
    return list({saga.name: saga for service in services.values() for saga in service.sagas}.values())


def import_here(name: str, *, or_bundled: bool = False) -> ModuleType:
    """Import a module, looking in the current directory first.

    What is not found may be a package of the wheel's demonstrations, if SAGA_PACKAGE names one or `or_bundled`.

    Raises:
        UsageError: it does not exist; what fails inside it raises as it is.
    """
    if not all(part.isidentifier() for part in name.split(".")):
        raise UsageError(f"{name!r} can't be the name of a module: write for example services, or services.payment.app")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        return import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise
        if (or_bundled or "SAGA_PACKAGE" in os.environ) and _can_bundle(error.name):
            sys.path.insert(0, str(_BUNDLED))  # before the current directory: it may have another package of one name
            return import_module(name)
        raise UsageError(
            f"there is no module {name!r} in {os.getcwd()}: go to the directory that holds it, "
            "or name the services' package in SAGA_PACKAGE"
        ) from error


def is_bundled() -> bool:
    """Whether this process runs a demonstration of the wheel."""
    return str(_BUNDLED) in sys.path


def _can_bundle(package: str) -> bool:
    return (_BUNDLED / package).is_dir() and not is_bundled()


def _at(reference: str) -> Service:
    from toolkit.declaration.service import Service

    module, _, attribute = reference.partition(":")
    service = getattr(import_here(module), attribute, None)
    if not isinstance(service, Service):
        raise UsageError(f"{reference!r} is no Service; write module:attribute, for example services.payment.app:app")
    return service
