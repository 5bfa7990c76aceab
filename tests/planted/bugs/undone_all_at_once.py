"""A coordinator asks all completed steps at once to undo themselves: their reverse order is lost."""

EDITS = {
    "toolkit/orchestration/course.py": [
        (
            "            if any(self._states.get(step) in _IS_UNDONE for step in group):\n"
            "                return\n",
            "        if any(self._states.get(step) in _IS_UNDONE for step in self._steps()):\n"
            "            return\n",
        ),
    ],
}  # fmt: skip
CAUGHT_BY = [
    "tests/conformance/test_orchestrated_sagas.py::test_a_refusal_undoes_the_earlier_steps",
    "tests/unit/orchestration/test_course.py::test_a_refusal_undoes_its_own_group_first",
]
