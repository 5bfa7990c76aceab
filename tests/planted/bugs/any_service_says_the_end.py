"""Each service that knows an end says it: so each login has to be allowed to, and may say what is not so."""

ANSWER = "        if tx.work.has_ended_here(message.envelope):\n            tx.work.answer("

EDITS = {
    "toolkit/runtime/executor.py": [(ANSWER, ANSWER.replace("tx.work.has_ended_here(message.envelope)", "True"))],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_ends.py::test_a_nudge_of_a_saga_that_ended_elsewhere_is_passed_on_once",
    "tests/simulation/test_lost_ends.py::test_every_service_learns_an_end_that_it_missed",
]
