"""What the toolkit's own tables do not take is given back to the broker, which gives it up after a while."""

EDITS = {
    "toolkit/persistence/availability.py": [
        ("            return None if is_of_values(error) else error\n", "            return None\n"),
    ],
    "toolkit/runtime/batcher.py": [
        (
            "            delivery.failed = None\n            self._hold(",
            "            delivery.settled.set_exception(error)\n            self._hold(",
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/persistence/test_availability.py::test_what_is_wrong_with_the_toolkits_tables_is_waited_for_and_said",
    "tests/unit/persistence/test_availability.py::test_a_right_or_a_rule_that_is_wrong_on_sqlite_is_waited_for_and_said",
]
