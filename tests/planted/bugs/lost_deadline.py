"""The saga's deadline is not handed on from event to event: only its first step ever knows of it."""

HANDED_ON = "            deadline=self.deadline,\n"

EDITS = {
    "toolkit/messaging/envelope.py": [(HANDED_ON, "")],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_executor.py::test_an_emitted_event_carries_cause_and_deadline",
    "tests/state_machine",
]
