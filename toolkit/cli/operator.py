"""What the operator's verbs share: who acts and why, durations, and one service out of those that are named."""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from toolkit.cli.exit_codes import UsageError
from toolkit.errors import AmbiguousSagaError

if TYPE_CHECKING:
    from toolkit.client.service_client import ServiceClient
    from toolkit.persistence.audit_log import Operator

#: The same limit as the API's.
_LONGEST_REASON = 500


def operator(reason: str) -> Operator:
    """Return who runs this command, and why.

    Raises:
        UsageError: the reason is empty or too long.
    """
    from toolkit.persistence.audit_log import Operator

    reason = " ".join(reason.split())
    if not reason:
        raise UsageError("a reason is required: --reason TEXT; it is kept in the audit")
    if len(reason) > _LONGEST_REASON:
        raise UsageError(f"--reason has {len(reason)} characters; at most {_LONGEST_REASON} are kept")
    return Operator(user(), reason)


def span(text: str, option: str) -> timedelta:
    """Return a duration as people write it.

    Raises:
        UsageError: it is none.
    """
    from pydantic import TypeAdapter, ValidationError

    from toolkit.configuration.settings import Duration

    try:
        found: timedelta = TypeAdapter(Duration).validate_python(text)
    except ValidationError as error:
        raise UsageError(f"{option} {text!r} is no duration: write 90s, 5min, 1h, 30d, or ISO 8601, PT5M") from error
    if found < timedelta(0):
        raise UsageError(f"{option} {text!r} is negative")
    return found


def pick(name: str, known: Sequence[ServiceClient]) -> ServiceClient:
    """Return the service of this name.

    Raises:
        UsageError: there is none; the text names those that there are.
    """
    found = next((each for each in known if each.service == name), None)
    if found is None:
        raise UsageError(
            f"there is no service {name!r} to read; there are: {', '.join(each.service for each in known)}"
        )
    return found


async def type_of(saga_id: str, named: str | None, known: Sequence[ServiceClient]) -> str | None:
    """Return the type of the saga of this id, where any service knows it.

    Raises:
        AmbiguousSagaError: no type is named, and sagas of several types have this id, be it in different services.
    """
    from toolkit.client.fan_out import query_all
    from toolkit.operations.search import Search

    if named is not None:
        return named
    answers = await query_all(known, lambda each: each.search(Search(q=saga_id)))
    rows = [row for found, _ in answers.by_service.values() for row in found]
    types = sorted({row.saga_type for row in rows if row.saga_id == saga_id})
    if len(types) > 1:
        raise AmbiguousSagaError(saga_id, types)
    return types[0] if types else None


def user() -> str:
    """Return who runs this command, and where."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"
