"""Checks and their findings: a severity, the observation, why it matters, and the cure."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial

from toolkit.doctor.facts import Facts


class Severity(StrEnum):
    """How serious a finding is."""

    FINE = "fine"
    PROBLEM = "problem"
    ADVICE = "advice"
    """It works, and the operator should know of it."""
    UNCHECKED = "unchecked"
    """The facts for it are missing, which is no sign of health."""


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation of a check; the service is None if it concerns all of them.

    - `cure`: replaces the check's own.
    - `fields`: the values of the fields in the check's cure.
    """

    severity: Severity
    found: str
    service: str | None = None
    cure: str | None = None
    fields: Mapping[str, object] = field(default_factory=dict)


fine = partial(Observation, Severity.FINE)
problem = partial(Observation, Severity.PROBLEM)
advice = partial(Observation, Severity.ADVICE)
unchecked = partial(Observation, Severity.UNCHECKED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An observation with its check's name and why it matters."""

    severity: Severity
    check: str
    service: str | None
    found: str
    why: str | None
    cure: str | None


@dataclass(frozen=True, slots=True)
class Check:
    """A check: its name, why it matters, its cure, and the function that looks at the facts.

    - `cure`: may have fields in braces, `{service}` above all; observations fill them.
    - `is_probe`: whether its facts come from a password that was tried or a message that was sent.
    """

    name: str
    why: str
    cure: str
    look: Callable[[Facts], Iterable[Observation]]
    is_probe: bool = False

    @property
    def looks_at(self) -> str:
        """What the check looks at: the docstring of its function."""
        return " ".join((inspect.getdoc(self.look) or "").split())

    def findings(self, facts: Facts) -> Iterator[Finding]:
        """Yield each finding once; a service with another finding gets none that is fine."""
        found = dict.fromkeys(map(self._finding, self.look(facts)))
        unwell = {each.service for each in found if each.service and each.severity is not Severity.FINE}
        return (each for each in found if each.severity is not Severity.FINE or each.service not in unwell)

    def _finding(self, seen: Observation) -> Finding:
        is_fine = seen.severity is Severity.FINE
        cure = seen.cure or self.cure.format(**{"service": seen.service, **seen.fields}) if not is_fine else None
        why = None if is_fine else self.why
        return Finding(
            severity=seen.severity, check=self.name, service=seen.service, found=seen.found, why=why, cure=cure
        )


def check(
    name: str, *, why: str, cure: str, is_probe: bool = False
) -> Callable[[Callable[[Facts], Iterable[Observation]]], Check]:
    """Make a check of a function that looks at the facts; its docstring names what it looks at."""
    return lambda look: Check(name, why, cure, look, is_probe)
