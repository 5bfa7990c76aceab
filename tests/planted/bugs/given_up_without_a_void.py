"""A step that gives up on an external call refuses at once, without the void that keeps the call from an effect."""

EDITS = {
    "toolkit/runtime/external_calls.py": [
        ("must_void = self._compensation_of(call.step) is not None", "must_void = False"),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_a_saga_ends.py::test_an_external_step_is_voided_before_it_refuses",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
