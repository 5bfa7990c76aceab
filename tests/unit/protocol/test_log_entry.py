"""A log entry is made from a row of the table or of an answer, and is a row again."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, asdict, fields

import pytest

from tests.orders import paid_order, shown
from toolkit.api.schemas import LogPage, WholeSaga
from toolkit.persistence.saga_log import Entry
from toolkit.protocol.fence import SagaState
from toolkit.protocol.log_entry import DetailedEntry, LogEntry, trace_of
from toolkit.protocol.rows import field_names

(ENTRY, *_) = shown(paid_order("order-1"))


def test_entry_is_made_from_a_larger_row():
    row = ENTRY.as_row() | {"id": 7, "traceparent": None}

    assert LogEntry.of(row) == ENTRY
    assert tuple(ENTRY.as_row()) == field_names(LogEntry)


def test_row_without_a_field_is_refused():
    with pytest.raises(KeyError, match="emitted_type"):
        LogEntry.of({name: value for name, value in ENTRY.as_row().items() if name != "emitted_type"})


def test_saga_state_of_a_row_is_typed():
    assert LogEntry.of(ENTRY.as_row() | {"saga_state": "Pending"}).saga_state is SagaState.PENDING


def test_unknown_saga_state_is_kept_as_text():
    assert LogEntry.of(ENTRY.as_row() | {"saga_state": "Lent"}).as_row()["saga_state"] == "Lent"


def test_entry_can_not_be_changed():
    with pytest.raises(FrozenInstanceError):
        ENTRY.step = "another"


def test_only_detailed_entries_have_a_trace():
    details = {"event_by": None, "emitted_body": None, "trace_id": "ab" * 16, "deadline": None}

    assert trace_of(DetailedEntry.of(ENTRY.as_row() | details)) == "ab" * 16
    assert trace_of(ENTRY) is None


def test_table_and_api_have_the_same_fields():
    stored = {each.name for each in fields(Entry)}
    page = LogPage.model_json_schema()["$defs"]["LogEntry"]["properties"]
    saga = WholeSaga.model_json_schema()["$defs"]["DetailedEntry"]["properties"]

    assert {*field_names(LogEntry)} <= stored
    assert tuple(page) == field_names(LogEntry)
    assert tuple(saga) == field_names(DetailedEntry)
    assert tuple(asdict(ENTRY)) == field_names(LogEntry)
