"""A claimed row is done with before it is published: whatever stops the relay then, the event never goes out."""

CLAIM = "await outbox.claim(await session.connection(), now=now, until=now + self._lease, most=most)\n"
DELETE = (
    "            from toolkit.persistence.batch_write import BatchWrite, write_batch\n"
    "            await write_batch(await session.connection(), BatchWrite(sent=[row.id for row in rows]))\n"
)

EDITS = {
    "toolkit/runtime/due_rows.py": [
        (f"            return {CLAIM}", f"            rows = {CLAIM}{DELETE}            return rows\n"),
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_relay.py::test_a_failed_publish_repeats_after_its_lease",
    "tests/unit/runtime/test_relay.py::test_a_relay_stopped_while_publishing_keeps_the_row",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
