"""A saga whose log was not read is taken for new, whatever the log shows of it: its end is not written after a step."""

EDITS = {
    "toolkit/runtime/unit_of_work.py": [
        (
            '            raise PositionTakenError("the log shows more of a saga than was read")\n',
            "            pass\n",
        )
    ]
}
CAUGHT_BY = [
    "tests/unit/runtime/test_ended_sagas.py::test_a_step_done_after_completion_is_confirmed",
    "tests/unit/runtime/test_ended_sagas.py::test_a_refusal_after_completion_is_a_contradiction",
]
