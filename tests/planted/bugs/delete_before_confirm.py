"""An outbox row is deleted as soon as its publish begins, whatever the broker says: a lost publish is lost for good."""

PUBLISH = "            publish = self._publisher.publish(row.message, destination=row.destination)\n"

EDITS = {
    "toolkit/runtime/relay.py": [
        (PUBLISH, "            self._confirmed.add(row.id, row.message.type)\n" + PUBLISH),
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_relay.py::test_a_row_is_deleted_only_after_the_confirm",
    "tests/state_machine",
]
