"""The saga's deadline is not handed on from event to event: only its first step ever knows of it."""

HANDED_ON = (
    "            traceparent=traceparent,\n"
    "            started_at=cause.started_at,\n"
    "        )\n"
    "        return self._send(envelope, event, body)\n"
)

EDITS = {
    "toolkit/runtime/unit_of_work.py": [("            deadline=cause.deadline,\n" + HANDED_ON, HANDED_ON)],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_executor.py::test_what_is_emitted_names_its_cause_and_carries_the_deadline",
    "tests/state_machine",
]
