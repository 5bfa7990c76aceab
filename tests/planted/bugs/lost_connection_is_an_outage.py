"""A step that breaks its own connection is taken for a database that was away, as often as it does."""

EDITS = {
    "toolkit/runtime/failed_batches.py": [
        ("        if delivery.breaks >= _BREAKS or not may_pass(error):\n", "        if not may_pass(error):\n"),
    ],
}
CAUGHT_BY = [
    "tests/unit/persistence/test_broken_connections.py::test_on_sqlite_a_broken_connection_fails_one_step",
]
