"""How far a saga has come, and what of it is still to come, printed for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from rich.text import Text

from toolkit.cli.exit_codes import UsageError, complain
from toolkit.cli.output import console, print_table, shortened, text_of
from toolkit.cli.service_discovery import find_service
from toolkit.client.saga_report import SagaReport, report_of
from toolkit.client.service_client import ServiceClient
from toolkit.declaration.contract import Contract
from toolkit.tracking.progress import NodeProgress, Progress, Status

#: Sign and colour of each status; its word alone is enough to know it.
_SIGNS = {
    Status.RUNNING: ("…", "green"),
    Status.WAITING: ("…", "cyan"),
    Status.REMAINING: ("○", "dim"),
    Status.OVERDUE: ("!", "bold yellow"),
    Status.DEAD_LETTER: ("!", "bold red"),
    Status.UNKNOWN: ("?", "bold yellow"),
}


async def follow(saga_id: str, saga_type: str | None, clients: Sequence[ServiceClient]) -> SagaReport:
    """Return the report of a saga; a contract that a service does not return is made from its declarations here."""
    return await report_of(saga_id, saga_type, clients, declared=_declared_here)


def _declared_here(service: str) -> Contract | None:
    try:
        return Contract.of(find_service(service))
    except UsageError:
        return None


def complain_of_contracts(missing: Mapping[str, str]) -> None:
    """Name each service whose contract is not known."""
    for service, reason in missing.items():
        complain(f"warning: what remains to be done in {service} is missing here, since its contract is: {reason}")


def complain_of_undeclared(steps: Mapping[str, Sequence[str]]) -> None:
    """Name each service that has entries of steps which it does not declare: nothing undoes them under another name."""
    for service, names in steps.items():
        complain(
            f"warning: {service} has entries of {', '.join(names)}, which it does not declare (any more): "
            "nothing undoes what was done under that name; `saga doctor` counts the sagas under way there"
        )


def print_remaining(found: Progress) -> None:
    """Print what of a saga is still to come, or not known, if anything is."""
    if found.remaining:
        is_open = any(node.status.is_to_come for node in found.remaining)
        console().print(Text("\nstill to come:" if is_open else "\nnot known:", style="bold"))
        print_table(("", "is", "service", "step", "detail"), [_line(node) for node in found.remaining])


def _line(node: NodeProgress) -> list[Text]:
    sign, style = _SIGNS[node.status]
    facts = (node.status.replace("_", " "), node.service, node.name)
    return [Text(sign, style=style), *map(text_of, facts), shortened("; ".join(_details(node)) or None)]


def _details(node: NodeProgress) -> list[str]:
    details = [f"undoes {node.of}"] if node.of else []
    if node.attempt and node.attempts:
        details.append(f"attempt {node.attempt} of {node.attempts}")
    if node.next_at:
        details.append(f"at {_clock(node.next_at)}")
    elif node.at:
        details.append(f"since {_clock(node.at)}")
    if node.nudges:
        details.append(f"nudges: {node.nudges}")
    if node.waits_for:
        details.append(f"waits for {node.waits_for}")
    return [*details, node.error] if node.error else details


def _clock(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(sep=" ", timespec="seconds").replace("+00:00", "Z")
