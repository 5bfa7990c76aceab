"""A cancellation that nothing asked for is taken for one of the task itself: the loop that it reaches ends silently."""

EDITS = {
    "toolkit/foreign_code/containment.py": [
        (
            "            if not is_cancelled:\n                raise EscapedError(",
            "            if False:\n                raise EscapedError(",
        )
    ]
}
CAUGHT_BY = [
    "tests/unit/foreign_code/test_containment.py::test_the_error_names_cause_and_cure",
    "tests/unit/foreign_code/test_containment.py::test_a_task_cancelled_apart_spares_its_caller",
]
