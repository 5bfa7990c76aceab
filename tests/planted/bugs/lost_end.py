"""A service that knows a saga's end has nobody told: who missed the end nudges for ever, and stays overdue."""

ANSWER = "        end = tx.work.end_of(message.envelope)\n        if not end or asked"

EDITS = {
    "toolkit/runtime/executor.py": [(ANSWER, ANSWER.replace("if not end", "if True or not end"))],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_ends.py::test_a_nudge_of_a_saga_that_ended_here_is_answered_once",
    "tests/simulation/test_lost_ends.py::test_every_service_learns_an_end_that_it_missed",
]
