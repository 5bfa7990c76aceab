"""An outbox row is deleted as soon as its publish begins, whatever the broker says: a lost publish is lost for good."""

PUBLISH = "        outcomes = await self._publish(rows)\n"

EDITS = {
    "toolkit/runtime/relay.py": [
        (PUBLISH, "        self._confirmed.add_all(rows)\n" + PUBLISH),
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_relay.py::test_a_row_is_deleted_only_after_the_confirm",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
