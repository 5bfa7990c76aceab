"""What a check has to say: of what, with which verdict, what was found, and what cures it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, TypeVar

F = TypeVar("F")


class Verdict(StrEnum):
    """How it stands with one thing that was looked at."""

    FINE = "fine"
    PROBLEM = "problem"
    ADVICE = "advice"
    """It works as it is, and somebody should know."""
    UNCHECKED = "unchecked"
    """It could not be asked; that is no sign of health."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one thing; the service is None where it concerns all of them."""

    verdict: Verdict
    found: str
    service: str | None = None
    cure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was seen, by which check, and why that matters."""

    verdict: Verdict
    check: str
    service: str | None
    found: str
    why: str | None
    cure: str | None


@dataclass(frozen=True, slots=True)
class Check(Generic[F]):
    """One thing to look at, and why it matters."""

    name: str
    why: str
    look: Callable[[F], Iterable[Seen]]

    def findings(self, facts: F) -> Iterator[Finding]:
        """Judge the facts; a service of which anything is not well is not said to be well beside it."""
        all_seen = dict.fromkeys(self.look(facts))  # of a service's two queues it may see the same
        not_well = {each.service for each in all_seen if each.service and each.verdict is not Verdict.FINE}
        for seen in all_seen:
            if seen.verdict is Verdict.FINE and seen.service in not_well:
                continue
            yield Finding(
                verdict=seen.verdict,
                check=self.name,
                service=seen.service,
                found=seen.found,
                why=None if seen.verdict is Verdict.FINE else self.why,
                cure=seen.cure,
            )


def check(name: str, *, why: str) -> Callable[[Callable[[F], Iterable[Seen]]], Check[F]]:
    """Make a check of a function that looks at facts."""
    return lambda look: Check(name, why, look)


def fine(found: str, service: str | None = None) -> Seen:
    """Say that all is well."""
    return Seen(Verdict.FINE, found, service)


def problem(found: str, service: str | None = None, *, cure: str) -> Seen:
    """Say that something is wrong."""
    return Seen(Verdict.PROBLEM, found, service, cure)


def advice(found: str, service: str | None = None, *, cure: str) -> Seen:
    """Say what works, and could be better."""
    return Seen(Verdict.ADVICE, found, service, cure)


def unchecked(found: str, service: str | None = None, *, cure: str) -> Seen:
    """Say what could not be asked, and what would make it so."""
    return Seen(Verdict.UNCHECKED, found, service, cure)
