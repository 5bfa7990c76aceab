"""What the toolkit's own tables do not take is given back to the broker, which gives it up after a while."""

EDITS = {
    "toolkit/persistence/availability.py": [
        ("            return None if is_of_values(error) else error\n", "            return None\n"),
    ],
    "toolkit/runtime/failed_batches.py": [
        (
            "            delivery.commit_error = None\n            self._hold(",
            "            delivery.fail(error)\n            self._hold(",
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/persistence/test_wrong_tables.py::test_a_wrong_table_is_waited_for_and_logged",
    "tests/unit/persistence/test_wrong_tables.py::test_on_sqlite_a_wrong_rule_is_waited_for",
]
