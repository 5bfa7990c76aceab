"""A row that can't be read fails the whole sweep, again and again, for all sagas."""

EDITS = {
    "toolkit/persistence/unreadable_rows.py": [
        ("            set_aside(table, error, **_keys(row))\n", "            raise\n"),
    ],
    "toolkit/persistence/saga_log_streams.py": [
        ("            if saga not in broken:\n", "            raise\n            if error:\n"),
    ],
}
CAUGHT_BY = ["tests/unit/persistence/test_unreadable_rows.py"]
