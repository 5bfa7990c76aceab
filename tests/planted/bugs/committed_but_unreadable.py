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
    "tests/unit/runtime/test_executor.py::test_a_step_against_its_declaration_is_refused_alone",
    "tests/conformance/test_a_saga_ends.py::test_an_event_that_the_next_service_could_not_read_is_never_committed",
    "tests/conformance/test_a_saga_ends.py::test_a_compensation_whose_event_could_not_be_read_waits_for_a_person",
]
