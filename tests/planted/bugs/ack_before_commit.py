"""A delivery is acknowledged when it is taken, not when its effect is committed: a crash in between loses it."""

EDITS = {
    "toolkit/runtime/batcher.py": [
        (
            "        self._requeue(*taken)\n",
            "        self._requeue(*taken)\n        for each in taken:\n            each.source.settle([each])\n",
        )
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_batcher.py::test_a_delivery_returns_once_its_effect_is_committed",
    "tests/state_machine",
    "tests/simulation/test_order_seeds.py::test_orders_are_whole_under_every_seed",
]
