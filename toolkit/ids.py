"""Identifiers: random ones that sort by time, and derived ones that make the same request the same message."""

from __future__ import annotations

import uuid

import uuid_utils

#: The namespace of the derived message ids; any constant does, so long as it never changes.
_NAMESPACE = uuid.UUID("6f1f3c6e-3f0b-5d0e-9a53-5b2f6f0a7c11")


def new_id() -> str:
    """Return a fresh UUIDv7: unique anywhere, and in order of creation within one process."""
    return str(uuid_utils.uuid7())


def derived_id(saga_id: str, event_type: str) -> str:
    """Return the message id of a client that gave none: the same event of the same saga has the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{saga_id}:{event_type}"))
