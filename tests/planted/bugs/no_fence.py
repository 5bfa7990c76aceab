"""An event runs its step whatever the log says of it: twice on a duplicate, and after its compensation."""

EDITS = {
    "toolkit/runtime/dispatch.py": [
        (
            "        state = transition.stream.state\n"
            "        decision = decide(Arrival.FORWARD, state)\n",
            "        state, decision = None, Decision.RUN\n",
        ),
    ],
    "toolkit/runtime/step_entries.py": [
        ("assert is_legal(stream.state, to, is_asked=self._is_asked)", "assert True or (stream.state, to)"),
    ],
}  # fmt: skip
CAUGHT_BY = [
    "tests/conformance/test_races_are_harmless.py::test_a_duplicate_event_has_one_effect",
    "tests/conformance/test_races_are_harmless.py::test_a_late_success_is_noted_without_effect",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
