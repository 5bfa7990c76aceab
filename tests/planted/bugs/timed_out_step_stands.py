"""A coordinator that gives up on a step undoes the earlier ones only: the step that was late after all stands."""

EDITS = {
    "toolkit/orchestration/course.py": [
        (
            "            self._move(step, StepState.VOIDING, Verb.UNDO)\n",
            "            self._move(step, StepState.FAILED)\n"
            "            self._go_on()\n",
        ),
    ],
}  # fmt: skip
CAUGHT_BY = [
    "tests/conformance/test_orchestrated_timeouts.py::test_a_step_given_up_while_it_runs_is_undone",
    "tests/conformance/test_orchestrated_timeouts.py::test_an_abort_at_each_step_ends_the_trip",
    "tests/unit/orchestration/test_course.py::test_giving_up_undoes_the_step_itself",
]
