"""The relay remembers how far it has come and goes on from there: what commits late, or fails, is passed for good."""

ROWS = "        self._start(rows)\n"
SEEN = "        self._expected: list[datetime] = []\n"

EDITS = {
    "toolkit/runtime/due_rows.py": [
        (SEEN, SEEN + '        self._cursor = ""\n'),
        (
            ROWS,
            "        rows = [row for row in rows if row.id > self._cursor]\n"
            "        self._cursor = max((row.id for row in rows), default=self._cursor)\n" + ROWS,
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_relay.py::test_a_row_committed_late_is_not_skipped",
    "tests/unit/runtime/test_relay.py::test_a_failed_publish_repeats_after_its_lease",
    "tests/state_machine",
]
