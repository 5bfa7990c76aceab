"""Read the findings of `saga doctor -o json`."""

from __future__ import annotations

import json
from typing import Any

#: The exit code for each worst severity.
_CODES = {"problem": 1, "unchecked": 3, "advice": 0}


def found(result: Any, check: str) -> list[dict[str, Any]]:
    """Return a check's findings that are not fine, and see that each has its reason and its cure."""
    rows = [each for each in json.loads(result.stdout) if each["check"] == check and each["severity"] != "fine"]
    assert all(each["why"] and each["cure"] for each in rows)
    return rows


def only(result: Any, check: str, *, severity: str = "problem") -> dict[str, Any]:
    """Return the only finding of a check, and see that the exit code is that of the worst severity."""
    (row,) = found(result, check)
    worst = {each["severity"] for each in json.loads(result.stdout)}
    assert row["severity"] == severity
    assert result.exit_code == next((code for each, code in _CODES.items() if each in worst), 0)
    return row


def unchecked(result: Any, check: str) -> dict[str, Any]:
    """Return the only finding of a check, whose facts are missing."""
    return only(result, check, severity="unchecked")
