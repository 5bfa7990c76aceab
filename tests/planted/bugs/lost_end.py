"""A service that knows a saga's end never repeats it: a service that missed the end nudges for ever."""

EDITS = {
    "toolkit/runtime/ended_sagas.py": [("        if end is None or request_id in", "        if True or request_id in")],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_ended_sagas.py::test_a_nudge_is_answered_with_the_end_once",
    "tests/simulation/test_lost_ends.py::test_every_service_learns_an_end_that_it_missed",
]
