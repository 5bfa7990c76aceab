"""What a step returns is committed as it is, whether the next service can read it or not."""

EDITS = {
    "toolkit/runtime/step_runner.py": [
        (
            "        return result if isinstance(result, Failure) else self._encoded(attempt, result)\n",
            "        return result\n",
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_step_runner.py::test_a_step_against_its_declaration_is_refused_alone",
    "tests/conformance/test_a_saga_ends.py::test_an_unreadable_event_is_never_committed",
    "tests/conformance/test_a_saga_ends.py::test_a_compensation_with_unreadable_event_needs_a_person",
]
