"""A service that knows a saga's end does not answer: who missed the end nudges for ever, and stays overdue."""

ANSWER = "        end = tx.work.end_of(message.envelope)\n        if end and asked"

EDITS = {
    "toolkit/execution.py": [(ANSWER, ANSWER.replace("if end", "if False and end"))],
}
CAUGHT_BY = [
    "tests/unit/test_ends.py::test_a_nudge_of_an_ended_saga_is_answered_once",
    "tests/simulation/test_lost_ends.py::test_every_service_learns_an_end_that_it_missed",
]
