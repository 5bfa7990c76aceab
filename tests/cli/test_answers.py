"""`saga questions` and `saga answer`, on a desk that waits, and on one that has been answered."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.cli.test_golden import FORMATS, assert_golden
from tests.cli.test_json_escapes import MARK, STEERING
from tests.example_sagas.loans import NOON
from tests.example_sagas.purchase_desk import NO, QUOTED, desk, incoming, taken
from toolkit.persistence import audit_log, outbox
from toolkit.persistence.audit_log import AuditEntry
from toolkit.persistence.database import Database
from toolkit.protocol.pending_rows import UnsentMessage
from toolkit.testing import ManualClock

WHY = ("--reason", "within the budget")


@pytest.fixture
def known(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A desk with two questions: one is open, the other has been answered."""
    monkeypatch.setenv("SAGA_PACKAGE", "tests.cli.purchases")
    data_dir.mkdir()
    asyncio.run(write(data_dir))
    return data_dir


async def write(directory: Path) -> None:
    database, clock = Database(f"sqlite:///{directory}/desk.db"), ManualClock(NOON)
    await database.create_tables()
    branch = await desk(database, clock)
    await taken(branch, incoming(QUOTED, clock))
    decided = {"saga_id": "desk-2", "sent_by": "officer"}
    await taken(branch, incoming(QUOTED.model_copy(update={"purchase_id": "desk-2"}), clock, **decided, event_id="q"))
    await taken(branch, incoming(NO.model_copy(update={"purchase_id": "desk-2"}), clock, **decided, event_id="n"))
    await database.close()


async def ask_now(directory: Path, saga_id: str) -> None:
    """Open a question whose deadline has not passed."""
    database, clock = Database(f"sqlite:///{directory}/desk.db"), ManualClock(datetime.now(UTC))
    quoted = QUOTED.model_copy(update={"purchase_id": saga_id})
    await taken(await desk(database, clock), incoming(quoted, clock, saga_id=saga_id))
    await database.close()


async def changed(directory: Path) -> tuple[list[UnsentMessage], list[AuditEntry]]:
    """Return the messages of the desk to itself, without its timers, and the audit."""
    database = Database(f"sqlite:///{directory}/desk.db")
    async with database.reading() as connection:
        rows = [row for row in await outbox.listed(connection) if row.destination and not row.is_timer]
        found = rows, await audit_log.listed(connection)
    await database.close()
    return found


def test_answers_and_questions_escape_what_steers_a_terminal(saga, known):
    with closing(sqlite3.connect(known / "desk.db")) as database, database:
        database.execute("UPDATE saga_log SET saga_id = saga_id || ?, event_by = event_by || ?", [MARK, MARK])

    listed = saga("questions", "-o", "json")
    answered = saga("answer", "Declined", "--saga", f"desk-2{MARK}", *WHY, "-o", "json")

    for each in (listed, answered):
        assert not STEERING.search(each.stdout), each.stdout
    assert json.loads(listed.stdout)[0]["saga_id"].endswith(MARK)


@pytest.mark.parametrize("output", FORMATS)
def test_questions_output_is_the_golden_one(saga, known, output):
    result = saga("questions", "-o", output)

    assert result.exit_code == 0, result.output
    assert_golden(f"questions.{output}.txt", result.stdout, result.stderr, known)


def test_a_cut_list_of_questions_has_a_warning(saga, known):
    asyncio.run(ask_now(known, "desk-3"))

    cut, whole = saga("questions", "--limit", "1", "-o", "json"), saga("questions", "--limit", "3", "-o", "json")

    assert [row["saga_id"] for row in json.loads(cut.stdout)] == ["desk-1"]
    assert cut.stderr == "warning: of desk only the longest waiting 1 are listed; there may be more\n"
    assert (len(json.loads(whole.stdout)), whole.stderr) == (2, "")


@pytest.mark.parametrize("output", FORMATS)
def test_answer_output_is_the_golden_one(saga, known, output):
    result = saga("answer", "Approved", "--saga", "desk-2", *WHY, "-o", output)

    assert result.exit_code == 1, result.output
    assert_golden(f"answer.{output}.txt", result.stdout, result.stderr, known)
    assert asyncio.run(changed(known)) == ([], [])


def test_an_answer_without_its_service_is_sent(saga, known):
    asyncio.run(ask_now(known, "desk-3"))

    result = saga("answer", "Approved", "--saga", "desk-3", *WHY, "--set", "note=5", "--set", "limit=900", "-o", "json")

    assert result.exit_code == 3, result.output
    (row,) = json.loads(result.stdout)
    assert (row["outcome"], row["decided_by"]) == ("sent", None)
    assert row["why"] == "decide has not taken it yet; `saga trace desk-3` shows when it does"
    ((sent,), (entry,)) = asyncio.run(changed(known))
    assert (sent.event_type, sent.event_id, sent.destination) == ("Approved", row["event_id"], "saga.desk")
    assert (entry.verb, entry.subject, entry.reason, entry.saga_id) == (
        "answer",
        "Approved",
        "within the budget",
        "desk-3",
    )


@pytest.mark.parametrize(
    ("arguments", "code", "fault"),
    [
        (
            ("Aproved", "--saga", "desk-1"),
            2,
            "error: no service takes an answer 'Aproved'; they take: Approved, Declined\n",
        ),
        (
            ("Approved", "--saga", "dsek-1"),
            1,
            "error: no service that takes Approved knows a saga 'dsek-1'; `saga questions` lists what is open\n",
        ),
        (("Declined", "--saga", "desk-1"), 2, "error: this is no Declined: why: Field required\n"),
        (("Approved", "--saga", "desk-1", "--set", "limt=5"), 2, "error: Approved has no field limt\n"),
    ],
)
def test_a_wrong_answer_is_refused_with_the_fault(saga, known, arguments, code, fault):
    result = saga("answer", *arguments, *WHY)

    assert (result.exit_code, result.stderr) == (code, fault)
    assert asyncio.run(changed(known)) == ([], [])


def test_trace_shows_who_answered_and_what_is_open(saga, known):
    answered, open_one = saga("trace", "desk-2"), saga("trace", "desk-1")

    assert "Declined by officer: PurchaseRefused: too dear" in answered.stdout
    assert "PriceQuoted arrived" in answered.stdout
    assert "waits for Approved or Declined (answer)" in open_one.stdout
