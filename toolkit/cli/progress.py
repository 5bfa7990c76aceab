"""How far a saga has come, as all services together tell it, and what of it is still to come, printed for people."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from rich.text import Text

from toolkit.cli.exit_codes import UsageError, complain
from toolkit.cli.output import console, print_table, shortened, text_of
from toolkit.cli.service_discovery import find_service
from toolkit.client.controls import Controls
from toolkit.client.sources import ask_all
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract
from toolkit.operations.views import see_that_it_is_one
from toolkit.protocol.timeline import Timeline, tell
from toolkit.tracking.progress import NodeProgress, Progress, Status, progress

#: How what is to come looks; told by the word, and only helped by sign and colour.
_SIGNS = {
    Status.RUNNING: ("…", "green"),
    Status.REMAINING: ("○", "dim"),
    Status.OVERDUE: ("!", "bold yellow"),
    Status.DEAD_LETTER: ("!", "bold red"),
    Status.UNKNOWN: ("?", "bold yellow"),
}


@dataclass(frozen=True, slots=True)
class Followed:
    """A saga's story, how far it has come, and of which services that are there no contract is known.

    `has_dead_letters`: a service has given up messages of it, which may be all that there is.
    `undeclared`: by service, the steps that it has entries of and does not declare.
    """

    timeline: Timeline
    progress: Progress
    without_contract: Mapping[str, str]
    has_dead_letters: bool
    undeclared: Mapping[str, Sequence[str]]


async def follow(saga_id: str, saga_type: str | None, services: Sequence[Controls]) -> Followed:
    """Ask all services for this saga, and for their contracts.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id, be it in different services.
    """
    seen, told = await asyncio.gather(
        ask_all(services, lambda each: each.saga(saga_id, saga_type)), ask_all(services, lambda each: each.contract())
    )
    see_that_it_is_one(saga_id, seen.by_service.values())
    timeline = tell(
        saga_id, {name: view.entries for name, view in seen.by_service.items()}, unreachable=seen.unreachable
    )
    contracts = told.by_service | _declared_here(told.unreachable)
    missing = {name: why for name, why in told.unreachable.items() if name in seen.by_service.keys() - contracts.keys()}
    has_dead_letters = any(view.dead_letters for view in seen.by_service.values())
    found = progress(timeline, Choreography(contracts.values()), seen.by_service)
    return Followed(timeline, found, missing, has_dead_letters, _undeclared(timeline, contracts))


def _undeclared(timeline: Timeline, contracts: Mapping[str, Contract]) -> dict[str, list[str]]:
    declared = {(name, each.saga, each.name) for name, contract in contracts.items() for each in contract.handlers}
    found: dict[str, list[str]] = {}
    for entry in timeline.entries:
        service, step = entry["service"], entry["step"]
        is_gone = service in contracts and (service, entry["saga_type"], step) not in declared
        if is_gone and step not in found.setdefault(service, []):
            found[service].append(step)
    return found


def _declared_here(services: Mapping[str, str]) -> dict[str, Contract]:
    """Return the contracts of those services whose declarations lie below the current directory."""
    found = {}
    for name in services:
        try:
            found[name] = Contract.of(find_service(name))
        except UsageError:
            continue
    return found


def complain_of_contracts(missing: Mapping[str, str]) -> None:
    """Name each service of which nobody knows what it would do next."""
    for service, reason in missing.items():
        complain(f"warning: what remains to be done in {service} is missing here, since its contract is: {reason}")


def complain_of_undeclared(steps: Mapping[str, Sequence[str]]) -> None:
    """Name each service that has entries of steps which it does not declare: under another name nothing undoes them."""
    for service, names in steps.items():
        complain(
            f"warning: {service} has entries of {', '.join(names)}, which it does not declare (any more): "
            "nothing undoes what was done under that name; `saga doctor` says how many sagas are under way there"
        )


def print_remaining(found: Progress) -> None:
    """Print what of a saga is still to come, or not known, if anything is."""
    if found.remaining:
        is_open = any(node.status.is_to_come for node in found.remaining)
        console().print(Text("\nstill to come:" if is_open else "\nnot known:", style="bold"))
        print_table(("", "is", "service", "step", "tells"), [_line(node) for node in found.remaining])


def _line(node: NodeProgress) -> list[Text]:
    sign, style = _SIGNS[node.status]
    facts = (node.status.replace("_", " "), node.service, node.name)
    return [Text(sign, style=style), *map(text_of, facts), shortened("; ".join(_tells(node)) or None)]


def _tells(node: NodeProgress) -> list[str]:
    tells = [f"undoes {node.of}"] if node.of else []
    if node.attempt and node.attempts:
        tells.append(f"attempt {node.attempt} of {node.attempts}")
    if node.next_at:
        tells.append(f"at {_clock(node.next_at)}")
    elif node.at:
        tells.append(f"since {_clock(node.at)}")
    if node.nudges:
        tells.append(f"nudges: {node.nudges}")
    return [*tells, node.error] if node.error else tells


def _clock(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
