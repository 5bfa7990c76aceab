"""The check of every interleaving, as an assertion."""

from __future__ import annotations

from collections.abc import Iterable

from toolkit.checker.check import check
from toolkit.declaration.service import Service


def assert_sound(services: Iterable[Service]) -> None:
    """Check all sagas of these services as `saga check` does: by static rules, and in every interleaving.

    Raises:
        AssertionError: the text names each finding, its story and its cure; or a saga that has too many states.
    """
    reports = list(check(services))
    lines = [str(finding) for report in reports for finding in report.findings]
    lines += [f"{each.saga} has too many states to be explored" for each in reports if each.is_unfinished]
    if lines:
        raise AssertionError("\n".join(lines))
