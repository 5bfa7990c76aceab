"""Each event of a join has its slot's own key, not the next position: of two at once, neither sees the other."""

EDITS = {
    "toolkit/runtime/join_transitions.py": [
        (
            "        super()._move(to, saga_state, emitted=emitted, body=body, error=error, made_by=made_by)\n",
            "        if type(self) is JoinTransition and self.step.signature.is_join:\n"
            "            slots, kind, made = list(self.step.slots.values()), type(self.message.event), made_by\n"
            "            slot = next((number for number, events in enumerate(slots, 1) if kind in events), 0)\n"
            "            key = slot if to is StepState.GATHERING else max(len(slots), self.stream.position) + 1\n"
            "            made_by = lambda *name, **facts: made(*name, **(facts | {'position': key}))  # noqa: E731\n"
            "        super()._move(to, saga_state, emitted=emitted, body=body, error=error, made_by=made_by)\n",
        ),
    ],
}  # fmt: skip
CAUGHT_BY = [
    "tests/unit/runtime/test_joins_at_once.py::test_two_last_arrivals_at_once_run_the_join_once",
    "tests/unit/runtime/test_joins_at_once.py::test_arrivals_that_miss_each_other_are_joined",
]
