"""Changes of shipped sagas, each as what it does to the services' contracts, which are plain JSON here."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

from examples.approval.demo import DEMO as PURCHASE
from examples.orchestrated.demo import DEMO as ORCHESTRATED
from services.demo import SERVICES
from toolkit.compatibility.changed_moves import Rollout
from toolkit.compatibility.compare import ChangeReport, compare
from toolkit.declaration.contract import Contract

#: The contracts of one release by service.
Contracts = dict[str, Any]
Alter = Callable[[Contracts], object]

ORDER: Contracts = {each.name: Contract.of(each).model_dump(mode="json") for each in SERVICES}
PURCHASES: Contracts = {each.name: Contract.of(each).model_dump(mode="json") for each in PURCHASE.services}
ASKED: Contracts = {each.name: Contract.of(each).model_dump(mode="json") for each in ORCHESTRATED.services}


@dataclass(frozen=True)
class Seed:
    """A change: what it does to the new release, and what the old one is, if not as it ships."""

    change: Alter
    before: Alter = lambda contracts: None
    of: Contracts = field(default_factory=lambda: ORDER)

    def releases(self) -> tuple[Contracts, Contracts]:
        """Return the old release and the new one."""
        old = deepcopy(self.of)
        self.before(old)
        new = deepcopy(old)
        self.change(new)
        return old, new

    def reports(self, rollout: Rollout | None = None) -> list[ChangeReport]:
        """Return the reports of its comparison."""
        old, new = map(parsed, self.releases())
        return list(compare(old, new, rollout=rollout))


@dataclass(frozen=True)
class Found:
    """A finding: its rule, the declaration to change, a part of its message, and its story, if it has one."""

    rule: str
    service: str
    function: str
    message: str
    story: tuple[str, ...] = ()


def parsed(contracts: Contracts) -> list[Contract]:
    """Return contracts that were sent as JSON."""
    return [Contract.model_validate(each) for each in contracts.values()]


def all_of(*changes: Alter) -> Alter:
    """Return a change that does all of these."""

    def change(contracts: Contracts) -> None:
        for each in changes:
            each(contracts)

    return change


# -- events ------------------------------------------------------------------------------------------------------------


def declarations(contracts: Contracts, event: str, only: str | None = None) -> Iterator[dict[str, Any]]:
    """Yield an event as each service declares it, or as one does."""
    for service, contract in contracts.items():
        if event in contract["events"] and only in (None, service):
            yield contract["events"][event]


def event_with(event: str, *, only: str | None = None, **facts: Any) -> Alter:
    """Return a change of an event's own facts, in all services or in one."""
    return lambda contracts: [each.update(facts) for each in declarations(contracts, event, only)]


def with_field(event: str, name: str, schema: dict[str, Any], *, required: bool, only: str | None = None) -> Alter:
    """Return a change that gives an event a field, or another schema for it."""

    def change(contracts: Contracts) -> None:
        for each in declarations(contracts, event, only):
            each["json_schema"]["properties"][name] = deepcopy(schema)
            names = [one for one in each["json_schema"].get("required", []) if one != name]
            each["json_schema"]["required"] = [*names, *([name] if required else [])]

    return change


def without_field(event: str, name: str, *, only: str | None = None) -> Alter:
    """Return a change that takes a field from an event."""

    def change(contracts: Contracts) -> None:
        for each in declarations(contracts, event, only):
            each["json_schema"]["properties"].pop(name)
            each["json_schema"]["required"] = [one for one in each["json_schema"]["required"] if one != name]

    return change


def field_with(event: str, name: str, *, only: str | None = None, **rules: Any) -> Alter:
    """Return a change of the rules for one field; None takes a rule away."""

    def change(contracts: Contracts) -> None:
        for each in declarations(contracts, event, only):
            schema = each["json_schema"]["properties"][name]
            schema.update(rules)
            for rule in [rule for rule, value in rules.items() if value is None]:
                schema.pop(rule)

    return change


def with_upcaster(event: str, old: int, new: int, schema: dict[str, Any] | None, *, only: str | None = None) -> Alter:
    """Return a change that declares what makes a newer version of an event from an older one."""
    return event_with(event, only=only, upcasters=[{"from_version": old, "to_version": new, "json_schema": schema}])


def event_named(event: str, name: str, *, only: str | None = None) -> Alter:
    """Return a change of an event's name, wherever it is used."""

    def change(contracts: Contracts) -> None:
        for service in [each for each in contracts if only in (None, each)]:
            contracts[service] = _renamed(contracts[service], event, name)

    return change


def _renamed(content: Any, event: str, name: str) -> Any:
    if isinstance(content, dict):
        return {name if key == event else key: _renamed(value, event, name) for key, value in content.items()}
    if isinstance(content, list):
        return [_renamed(each, event, name) for each in content]
    if isinstance(content, str) and content.rpartition(".")[2] == event:
        return content[: -len(event)] + name
    return content


# -- steps -------------------------------------------------------------------------------------------------------------


def handler_of(contracts: Contracts, name: str) -> dict[str, Any]:
    """Return a step or a compensation."""
    return next(each for contract in contracts.values() for each in contract["handlers"] if each["name"] == name)


def handler_with(handler: str, **facts: Any) -> Alter:
    """Return a change of a step or of a compensation."""
    return lambda contracts: handler_of(contracts, handler).update(facts)


def runs_on(name: str, *slots: str) -> Alter:
    """Return a change of a function's slots, each written as `A|B`."""
    taken = [{"name": f"slot_{number}", "events": slot.split("|")} for number, slot in enumerate(slots)]
    return handler_with(name, slots=taken, triggers=[event for slot in taken for event in slot["events"]])


def without(*names: str) -> Alter:
    """Return a change that takes steps or compensations away."""

    def change(contracts: Contracts) -> None:
        for contract in contracts.values():
            contract["handlers"] = [each for each in contract["handlers"] if each["name"] not in names]

    return change


def step_named(name: str, new: str) -> Alter:
    """Return a change of a step's name."""

    def change(contracts: Contracts) -> None:
        handlers = (each for contract in contracts.values() for each in contract["handlers"])
        for each in [each for each in handlers if each["of"] == name]:
            each["of"] = new
        handler_of(contracts, name)["name"] = new

    return change


def moved(service: str, to: str, *names: str) -> Alter:
    """Return a change that moves functions, and the events that they use, to another service."""

    def change(contracts: Contracts) -> None:
        found = [each for each in contracts[service]["handlers"] if each["name"] in names]
        without(*names)(contracts)
        contracts[to]["handlers"] += found
        contracts[to]["events"] = contracts[service]["events"] | contracts[to]["events"]

    return change


def with_step(
    service: str, name: str, slots: tuple[str, ...], success: str, *refusals: str, of: str | None = None
) -> Alter:
    """Return a change that adds a step, or with `of` a compensation; events that are new have an id only."""

    def change(contracts: Contracts) -> None:
        pattern = contracts["inventory"]["handlers"][0]
        contract = contracts.setdefault(
            service, {"service": service, "toolkit_version": "0", "sagas": contracts["inventory"]["sagas"],
                      "handlers": [], "events": {}},
        )  # fmt: skip
        kind = "compensation" if of else "step"
        facts = {
            "name": name,
            "kind": kind,
            "of": of,
            "success": success,
            "refusals": list(refusals),
            "original": False,
        }
        contract["handlers"].append({**pattern, **facts, "timeout": None})
        runs_on(name, *slots)(contracts)
        known = {event: each for one in contracts.values() for event, each in one["events"].items()}
        for event in (success, *refusals, *(each for slot in slots for each in slot.split("|"))):
            contract["events"].setdefault(event, known.get(event) or _event(event, service))

    return change


def _event(name: str, owner: str) -> dict[str, Any]:
    schema = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
    return {"name": name, "owner": owner, "version": 1, "routing_key": f"{owner}.{name}", "optional": False,
            "answer": False, "description": "", "json_schema": schema, "sensitive": [], "example": {}}  # fmt: skip


def saga_with(**facts: str) -> Alter:
    """Return a change of the saga's own facts."""

    def change(contracts: Contracts) -> None:
        for contract in contracts.values():
            for saga in contract["sagas"]:
                saga.update(facts)
            for each in contract["handlers"]:
                each["saga"] = facts.get("name", each["saga"])

    return change
