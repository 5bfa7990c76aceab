"""The failed end waits until each branch is undone, and counts none that has refused: the saga never ends."""

EDITS = {
    "toolkit/runtime/joins.py": [
        (
            "from toolkit.declaration.events import Answer, Event\n",
            "from toolkit.declaration.events import Answer, Event, Refusal\n",
        ),
        (
            "    return Gate({name: [event.__name__ for event in events] for name, events in handler.slots.items()})\n",
            "    is_failed_end = isinstance(handler, Step) and handler.success is handler.saga.fails_with\n"
            "    counts = lambda event: not (is_failed_end and issubclass(event, Refusal))  # noqa: E731\n"
            "    slots = {name: [event.__name__ for event in events if counts(event)] for name, events in\n"
            "             handler.slots.items()}\n"
            "    return Gate(slots)\n",
        ),
    ],
    "toolkit/protocol/joins.py": [
        (
            "        filled = self.filled(gathered)\n"
            "        if any(",
            "        filled = self.filled(gathered)\n"
            "        if event_type not in self._slot_of:\n"
            "            return Fill.SURPLUS\n"
            "        if any(",
        ),
    ],
}  # fmt: skip
CAUGHT_BY = [
    "tests/conformance/test_joined_sagas.py::test_a_refusal_at_any_step_undoes_all",
    "tests/conformance/test_joined_sagas.py::test_an_abort_at_any_moment_is_atomic",
]
