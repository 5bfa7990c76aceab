"""The saga's deadline is not handed on from event to event: only its first step ever knows of it."""

HANDED_ON = "            deadline=cause.deadline,\n            traceparent=cause.traceparent,\n        )\n"

EDITS = {
    "toolkit/work.py": [
        (
            HANDED_ON + "        return self._send(envelope, event)\n",
            "            traceparent=cause.traceparent,\n        )\n        return self._send(envelope, event)\n",
        ),
    ],
}
CAUGHT_BY = [
    "tests/unit/test_execution.py::test_what_is_emitted_names_its_cause_and_carries_the_deadline",
    "tests/state_machine",
]
