"""Whether each service's tables are those that this release of its code works with."""

from __future__ import annotations

from collections.abc import Iterator

from toolkit.doctor.checks.database import answering
from toolkit.doctor.facts import Facts, Lack
from toolkit.doctor.findings import Seen, advice, check, fine, problem


@check("tables", why="the first message that needs one fails, again and again")
def tables(facts: Facts) -> Iterator[Seen]:
    """All tables are there."""
    for each in answering(facts):
        missing = [lack.name for lack in each.lacks if lack.kind == "table"]
        if missing:
            yield problem(
                f"there is no table {', '.join(missing)}",
                each.service,
                cure=f"saga run {each.service} makes its tables, if SAGA_DATABASE_URL leads there",
            )
        elif each.own_tables_known:
            yield fine("all tables are there", each.service)
        else:
            yield fine("the toolkit's tables are there; the service's own are declared elsewhere", each.service)


@check("columns", why="the table was made by an older release; this one does not start on it")
def columns(facts: Facts) -> Iterator[Seen]:
    """All tables have all their columns."""
    yield from _lacking(facts, "column", "all columns are there")


@check(
    "indexes",
    why="the table was made by an older release: without the key duplicates get through, without the index it crawls",
)
def indexes(facts: Facts) -> Iterator[Seen]:
    """All indexes and unique keys are there."""
    yield from _lacking(facts, "index", "all indexes are there", "unique key")


@check("undeclared step", why="under another name nothing undoes what the step did, and nothing nudges it")
def undeclared_steps(facts: Facts) -> Iterator[Seen]:
    """The log holds no step that the service does not declare, under its old name say."""
    for each in answering(facts):
        for step in each.former_steps or ():
            if step.unfinished:
                yield problem(
                    f"sagas are under way at a step that is not declared: {step}",
                    each.service,
                    cure=f"declare {step.step} until these sagas have ended; {each.service} does not start without it",
                )
            else:
                yield advice(
                    f"the log holds a step that is not declared: {step.saga_type}/{step.step}; its sagas have ended",
                    each.service,
                    cure="a late event of theirs is ignored; give the step its old name back, or saga prune them",
                )
        if each.former_steps == ():
            yield fine("all steps in the log are declared", each.service)


def _lacking(facts: Facts, kind: str, well: str, *others: str) -> Iterator[Seen]:
    for each in answering(facts):
        missing = [lack for lack in each.lacks if lack.kind in (kind, *others)]
        for lack in missing:
            yield problem(_told(lack), each.service, cure=f"{lack.statement};")
        if not missing:
            yield fine(well, each.service)


def _told(lack: Lack) -> str:
    return f"the table {lack.table} has no {lack.kind} {lack.name}"
