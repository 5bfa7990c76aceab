"""A step that refuses keeps what it had written until then."""

EDITS = {
    "toolkit/runtime/step_runner.py": [
        (
            "            is_undone = isinstance(result, Failure | Refusal)\n",
            "            is_undone = isinstance(result, Failure)\n",
        ),
        ("            if is_changed or not await", "            if False and not await"),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_a_saga_ends.py::test_a_refusal_undoes_all_completed_steps",
    "tests/unit/runtime/test_step_runner.py::test_a_refusal_rolls_back_the_steps_rows",
    "tests/state_machine",
]
