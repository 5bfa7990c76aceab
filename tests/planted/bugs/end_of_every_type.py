"""The end of a saga closes every saga of its id, whatever its type: what another one completed is undone no more."""

EDITS = {
    "toolkit/persistence/saga_ends.py": [
        ("AND saga_log.saga_type = ended.saga_type\n", "AND saga_log.saga_type <> ''\n"),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_two_types_under_one_id.py::test_one_sagas_end_leaves_the_other_open",
    "tests/conformance/test_two_types_under_one_id.py::test_a_saga_ended_event_changes_its_own_type",
    "tests/unit/persistence/test_saga_ends.py::test_an_end_closes_its_own_type_only",
]
