"""A message is what its type says, under whatever key: a login that may publish one key may say everything."""

EDITS = {
    "toolkit/messaging/senders.py": [("        self._check_key(event_type, wire)\n", "")],
}
CAUGHT_BY = [
    "tests/unit/messaging/test_senders.py::test_an_event_under_another_key_is_rejected",
]
