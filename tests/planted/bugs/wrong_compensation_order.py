"""An outside compensation tells the step before it to undo itself when it begins, not when it is done."""

EDITS = {
    "toolkit/runtime/executor.py": [
        ("tx.work.compensating(step, message)", "tx.work.compensating(step, message, compensation.emits)"),
    ],
    "toolkit/runtime/unit_of_work.py": [
        (
            "def compensating(self, step: Step, message: Message) -> None:",
            "def compensating(self, step: Step, message: Message, emits: type[Event]) -> None:",
        ),
        (
            "        self._move(step, message, StepState.COMPENSATING, SagaState.COMPENSATING)\n",
            "        event = step.saga.build(emits, saga_id=message.envelope.saga_id, reason='')\n"
            "        self._move(step, message, StepState.COMPENSATING, SagaState.COMPENSATING, emitted=event)\n",
        ),
    ],
}
CAUGHT_BY = [
    "tests/conformance/test_a_saga_ends.py::test_compensations_run_in_strict_reverse_order",
    "tests/conformance/test_every_refusal_and_abort.py",
    "tests/state_machine",
]
