"""Failpoints: named places at which a process kills itself as in a power cut, to prove that no place is unsafe.

They do nothing unless SAGA_CRASH_AT names a point when the process starts. Then the process kills itself with SIGKILL
the first time that it reaches the point; with SAGA_CRASH_ON only on a saga's way forward, or only while compensating.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

from toolkit.errors import SettingsError

T = TypeVar("T")

#: The points of a message; `claimed` belongs to external steps, and `called` is reached by each function.
HANDLER = (
    "delivered", "fenced", "claimed", "called", "step-written", "log-written", "outbox-written", "commit-sent",
    "committed", "acked",
)  # fmt: skip
#: The points of an outbox row; `relay-claimed` is a row that a poll found, not a hand-over.
RELAY = ("relay-claimed", "published", "confirmed", "deleted")
#: The point of the watchdog.
WATCH = ("overdue-found",)
POINTS = HANDLER + RELAY + WATCH
DIRECTIONS = ("forward", "compensating")

_at = os.environ.get("SAGA_CRASH_AT") or None
_on = os.environ.get("SAGA_CRASH_ON") or None

#: The names that mark a compensation path: saga states, and the events that `prepare` adds.
_backward = {"Compensating", "Failed"}
#: Control messages are about many sagas, or for all services: they have no direction.
_CONTROL = ("SagaEnded", "AbortRequested", "EndRequested", "SagaWaits")

#: So many turns of the event loop bring a statement or a publish onto the wire, and an answer seldom back.
_TURNS = 20


def prepare(compensation_events: Iterable[str]) -> None:
    """Learn the names of the events of compensation paths, and check the armed point.

    Raises:
        SettingsError: there is no such point or direction.
    """
    for variable, value, allowed in (("SAGA_CRASH_AT", _at, POINTS), ("SAGA_CRASH_ON", _on, DIRECTIONS)):
        if value is not None and value not in allowed:
            raise SettingsError(f"{variable}={value!r} is not allowed: take one of {', '.join(allowed)}")
    _backward.update(compensation_events)


def here(point: str, signs: Iterable[str | None] = ()) -> None:
    """Die if this point is armed; the signs are the events or the saga states at this point."""
    if _at == point and _is_due(signs):
        _die()


async def amid(point: str, doing: Coroutine[Any, Any, T], signs: Iterable[str | None] = ()) -> T:
    """Await a coroutine; if this point is armed, start the coroutine and die without its result."""
    if _at == point and _is_due(signs):
        task = asyncio.ensure_future(doing)
        for _ in range(_TURNS):
            await asyncio.sleep(0)
        _die(task)
    return await doing


def _is_due(signs: Iterable[str | None]) -> bool:
    # A sign may be a routing key: a foreign client's message bears nothing else.
    names = {sign.rpartition(".")[2] for sign in signs if sign}.difference(_CONTROL)
    directions = {"compensating" if name in _backward else "forward" for name in names}
    return _on in directions if _on else bool(names)


def _die(*_: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("nothing runs after SIGKILL")
