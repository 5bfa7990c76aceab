"""Findings as SARIF 2.1.0, the format in which code scanning services take the results of static analysis."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from toolkit.cli.github_annotations import text_of

if TYPE_CHECKING:
    from toolkit.checker.findings import Finding
    from toolkit.cli.check_places import Place

_SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"


def sarif(found: Iterable[tuple[Finding, Place | None]]) -> dict[str, Any]:
    """Return a log with one run; a rule's id is its name with hyphens."""
    from importlib.metadata import version

    found = list(found)
    rules = list(dict.fromkeys(finding.rule for finding, _ in found))
    driver = {
        "name": "saga check",
        "version": version("saga-toolkit"),
        "rules": [{"id": _id(rule), "name": rule, "shortDescription": {"text": rule}} for rule in rules],
    }
    results = [_result(finding, place, rules.index(finding.rule)) for finding, place in found]
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": [{"tool": {"driver": driver}, "results": results}]}


def _result(finding: Finding, place: Place | None, rule: int) -> dict[str, Any]:
    import hashlib

    where = f"{finding.saga}/{finding.service}/{finding.function}"
    logical = {"name": finding.function, "fullyQualifiedName": where, "kind": "function"}
    physical = {"artifactLocation": {"uri": _uri(place.path)}, "region": {"startLine": place.line}} if place else None
    location = {"logicalLocations": [logical]} | ({"physicalLocation": physical} if physical else {})
    told = f"{_id(finding.rule)}:{where}:{finding.message}"
    return {
        "ruleId": _id(finding.rule),
        "ruleIndex": rule,
        "level": str(getattr(finding, "level", "error")),
        "message": {"text": text_of(finding)},
        "locations": [location],
        "partialFingerprints": {"sagaFinding/v1": hashlib.sha256(told.encode()).hexdigest()},
    }


def _uri(path: str) -> str:
    return f"{'file://' if path.startswith('/') else ''}{quote(path)}"


def _id(rule: str) -> str:
    return rule.replace(" ", "-")
