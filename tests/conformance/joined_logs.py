"""The exact logs of the sagas with joins, step by step, after a success and after a refusal at each step."""

from __future__ import annotations

from collections.abc import Mapping

Logs = Mapping[str, list[str]]

DONE, UNDONE, REFUSED = ["completed", "confirmed"], ["completed", "compensated"], ["failed"]
#: One event, or two, of a join that did not get the last one.
ONE, TWO = ["gathering"], ["gathering"] * 2
CALLED_OFF, TOLD = {"call_off": [*TWO, "completed"]}, {"tell_all": ["completed"]}
RELEASED = {"reserve_venue": UNDONE, "release_venue": TWO}

#: By saga and refusing step: the states of each step that has any, where messages come in the order of their sending.
LOGS: dict[str, dict[str | None, Logs]] = {
    "trip": {
        None: {"book_room": DONE, "book_flight": DONE, "book_car": DONE, "take_payment": [*TWO, *DONE]},
        "book_room": {
            "book_room": REFUSED, "book_flight": UNDONE, "book_car": UNDONE, "take_payment": TWO, **CALLED_OFF
        },
        "book_flight": {
            "book_room": UNDONE, "book_flight": REFUSED, "book_car": UNDONE, "take_payment": TWO, **CALLED_OFF
        },
        "book_car": {
            "book_room": UNDONE, "book_flight": UNDONE, "book_car": REFUSED, "take_payment": TWO, **CALLED_OFF
        },
        "take_payment": {
            "book_room": UNDONE, "book_flight": UNDONE, "book_car": UNDONE, "take_payment": [*TWO, *REFUSED],
            **CALLED_OFF,
        },
    },
    "diamond": {
        None: {
            "reserve_venue": DONE, "book_caterer": DONE, "book_speaker": DONE, "print_programme": [*ONE, *DONE]
        },
        "reserve_venue": {"reserve_venue": REFUSED, **TOLD},
        "book_caterer": {
            "book_caterer": REFUSED, "book_speaker": UNDONE, "print_programme": ONE, **RELEASED, **TOLD
        },
        "book_speaker": {
            "book_caterer": UNDONE, "book_speaker": REFUSED, "print_programme": ONE, **RELEASED, **TOLD
        },
        "print_programme": {
            "book_caterer": UNDONE, "book_speaker": UNDONE, "print_programme": [*ONE, *REFUSED], **RELEASED, **TOLD
        },
    },
}  # fmt: skip
#: The steps that call out in the sagas named "external …", and the state before each outcome of them.
EXTERNAL = ("take_payment", "reserve_venue", "print_programme")
BEFORE = {"completed": ["executing"], "failed": ["executing"], "compensated": ["compensating"]}


def expected_logs(name: str, refusing: str | None) -> Logs:
    """Return the states of each step of a saga after this refusal, or after none."""
    logs = LOGS[name.removeprefix("external ")][refusing]
    if not name.startswith("external"):
        return logs
    return {step: _called_out(states) if step in EXTERNAL else states for step, states in logs.items()}


def _called_out(states: list[str]) -> list[str]:
    return [each for state in states for each in (*BEFORE.get(state, []), state)]
