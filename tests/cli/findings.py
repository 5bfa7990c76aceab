"""Reading what `saga doctor -o json` found."""

from __future__ import annotations

import json
from typing import Any

#: With what the command ends where this is the worst that it found.
_CODES = {"problem": 1, "unchecked": 3, "advice": 0}


def found(result: Any, check: str) -> list[dict[str, Any]]:
    """Return what a check did not find well, and see that it says why that matters, and what cures it."""
    rows = [each for each in json.loads(result.stdout) if each["check"] == check and each["verdict"] != "fine"]
    assert all(each["why"] and each["cure"] for each in rows)
    return rows


def only(result: Any, check: str, *, verdict: str = "problem") -> dict[str, Any]:
    """Return the one thing that a check found, and see that the exit code is that of the worst of all."""
    (row,) = found(result, check)
    worst = {each["verdict"] for each in json.loads(result.stdout)}
    assert row["verdict"] == verdict
    assert result.exit_code == next((code for each, code in _CODES.items() if each in worst), 0)
    return row


def unchecked(result: Any, check: str) -> dict[str, Any]:
    """Return the one thing that a check could not ask."""
    return only(result, check, verdict="unchecked")
