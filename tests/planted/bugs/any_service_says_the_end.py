"""Each service that knows an end announces it: so each login must be allowed to, and may announce a false one."""

EDITS = {
    "toolkit/runtime/ended_sagas.py": [("        if self.ended_here(saga):\n", "        if True:\n")],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_ended_sagas.py::test_a_nudge_requests_an_end_elsewhere_once",
    "tests/simulation/test_lost_ends.py::test_every_service_learns_an_end_that_it_missed",
]
