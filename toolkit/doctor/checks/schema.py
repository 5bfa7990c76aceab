"""Checks of each service's tables and of the steps in its log: they match the code."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.doctor.checks.database import answering
from toolkit.doctor.facts import DatabaseFacts, Facts
from toolkit.doctor.findings import Observation, advice, check, fine, problem
from toolkit.persistence.schema_version import HEAD, SchemaVersion, VersionState

_CREATED = "`saga run {}` creates its tables, if SAGA_DATABASE_URL leads there"


@check(
    "tables",
    why="without a table or a column messages fail, or the service does not start; without a unique key duplicates get "
    "through, without an index queries are slow",
    cure=_CREATED.format("{service}") + "; for a table of an older release the finding has the statement",
)
def tables(facts: Facts) -> Iterator[Observation]:
    """The version of the toolkit's tables, and the tables, columns, indexes and unique keys that the code declares;
    the service's own only if its code is here.

    A new column that may not be NULL needs a value for existing rows; for a big table use `CREATE INDEX CONCURRENTLY`.
    """
    for each in answering(facts):
        if each.version and each.version.state not in (VersionState.CURRENT, VersionState.MISSING):
            yield _of_another_version(each, each.version)
            continue
        missing = [lack.name for lack in each.lacks if lack.kind == "table"]
        if missing:
            yield problem(f"there is no table {', '.join(missing)}", each.service, _CREATED.format(each.service))
        for lack in each.lacks:
            if lack.kind != "table":
                found = f"the table {lack.table} has no {lack.kind} {lack.name}"
                yield problem(found, each.service, f"{lack.statement};")
        if not each.lacks:
            own = "" if each.own_tables_known else ", except the service's own, whose code is not here"
            yield fine(f"tables are as declared{own}", each.service)


def _of_another_version(facts: DatabaseFacts, version: SchemaVersion) -> Observation:
    if version.state is VersionState.NEWER:
        found = f"a newer release made the toolkit's tables: version {version.number}, and this release knows {HEAD}"
        return problem(found, facts.service, "run that release again, or a later one")
    found = f"the toolkit's tables have version {version.number or 'unknown'}, and this release needs {HEAD}"
    return problem(found, facts.service, f"stop the service's processes, and run `saga db upgrade {facts.service}`")


@check(
    "undeclared step",
    why="no compensation undoes a step under another name, and no nudge reaches it",
    cure="declare {step} until its sagas have ended; {service} does not start without it",
)
def undeclared_steps(facts: Facts) -> Iterator[Observation]:
    """The steps in the log that the code here does not declare, with their unfinished sagas; without any it is advice.

    The table `saga_known_steps` has all steps that the service ever declared.
    """
    for each in answering(facts):
        for step in each.former_steps or ():
            if step.unfinished:
                found = f"sagas are under way at a step that is not declared: {step}"
                yield problem(found, each.service, fields={"step": step.step})
            else:
                yield advice(
                    f"the log has a step that is not declared: {step.saga_type}/{step.step}; its sagas have ended",
                    each.service,
                    "its late events are ignored; restore the step's old name, or `saga prune` its sagas",
                )
        if each.former_steps == ():
            yield fine("all steps in the log are declared", each.service)
