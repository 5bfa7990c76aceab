"""How to change a declaration so that what is in flight is still read."""

from __future__ import annotations

from toolkit.compatibility.differences import Kind
from toolkit.compatibility.readings import OWNER, VERSION, Fault
from toolkit.declaration.contract import EventContract


def cure_of(fault: Fault, event: str, sent: EventContract) -> str:
    """Return how a reader comes to take an event as it was sent."""
    name = fault.path.rpartition(".")[2]
    cures: dict[str, str] = {
        OWNER: f'Keep owner="{sent.owner}" of {event}: it is part of its routing key',
        VERSION: f"Keep version {sent.version} of {event}, and give each new field a default",
        Kind.REQUIRED: f"Give {name} a default in {event}",
        Kind.RENAMED: f"Keep the name of what is {name} now, or give {name} a default, and drop the other one later",
        Kind.LEFT_OUT: f"Keep the default of {name} in {event}",
        Kind.UNKNOWN: f'Let {event} ignore unknown fields: extra="ignore"',
        Kind.NULL: f"Let {name} take None in {event}",
        Kind.TYPE: f"Keep the type of {name} in {event}, or add a field of another name, with a default",
        Kind.NARROWED: f"Let {name} take in {event} what was sent so far",
    }
    return cures.get(fault.rule, f"Keep {event} as it was")
