"""A saga starts under any text as its id: the first service works, and only the next one refuses its event."""

EDITS = {
    "toolkit/declaration/event_rules.py": [
        ("        if taken is not None and not is_saga_id(taken):\n", "        if False and taken is not None:\n"),
    ],
    "toolkit/messaging/saga_lookup.py": [
        (
            "            return started.name, _saga_id(own_id(event, started), ",
            "            return started.name, str(own_id(event, started) or ",
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/declaration/test_event_ids.py::test_a_field_that_accepts_other_ids_is_refused",
    "tests/unit/declaration/test_event_ids.py::test_a_starting_event_without_an_id_is_refused",
    "tests/unit/messaging/test_unreadable_messages.py::test_no_saga_starts_with_an_invalid_id",
]
