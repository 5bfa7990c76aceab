"""An outside compensation tells the step before it to undo itself when it begins, not when it is done."""

EDITS = {
    "toolkit/runtime/dispatch.py": [
        ("transition.compensating()", "transition.compensating(compensation.emits)"),
    ],
    "toolkit/runtime/transitions.py": [
        (
            "def compensating(self) -> None:",
            "def compensating(self, emits: type[Event]) -> None:",
        ),
        (
            "        self._move(StepState.COMPENSATING, SagaState.COMPENSATING)\n",
            "        event = self._built(emits, '')\n"
            "        self._move(StepState.COMPENSATING, SagaState.COMPENSATING, emitted=event)\n",
        ),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_a_saga_ends.py::test_compensations_run_in_strict_reverse_order",
    "tests/conformance/test_every_refusal_and_abort.py",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
