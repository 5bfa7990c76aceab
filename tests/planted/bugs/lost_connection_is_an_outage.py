"""A step that breaks its own connection is taken for a database that was away, as often as it does."""

EDITS = {
    "toolkit/runtime/batcher.py": [
        ("        if delivery.breaks >= _BREAKS or not may_pass(error):\n", "        if not may_pass(error):\n"),
    ],
}
CAUGHT_BY = [
    "tests/unit/persistence/test_availability.py::test_a_step_that_breaks_its_own_connection_fails_alone_on_sqlite",
]
