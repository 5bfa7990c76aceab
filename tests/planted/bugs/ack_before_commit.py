"""A delivery is acknowledged when it is taken, not when its effect is committed: a crash in between loses it."""

EDITS = {
    "toolkit/runtime/batcher.py": [
        ("        return delivery.settled\n", "        delivery.settle()\n        return delivery.settled\n")
    ],
}
CAUGHT_BY = [
    "tests/unit/runtime/test_batcher.py::test_a_delivery_returns_once_its_effect_is_committed",
    "tests/state_machine",
]
