"""Failpoints: named places at which a process can be told to die as in a power cut, to prove that none is a bad one.

Dead code unless SAGA_CRASH_AT names a point when the process starts. Then the process kills itself with SIGKILL at the
first time that it comes by; with SAGA_CRASH_ON only on a saga's way forward, or only on its way back (compensating).
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Iterable
from typing import Any, NoReturn, TypeVar

from toolkit.errors import SettingsError

T = TypeVar("T")

#: Where a message is handled: `claimed` and `called` belong to steps that call the outside world.
HANDLER = (
    "delivered", "fenced", "claimed", "called", "step-written", "log-written", "outbox-written", "commit-sent",
    "committed", "acked",
)  # fmt: skip
#: Where an outbox row goes out; `relay-claimed` is a row that no hand-over brought, but a search of the table.
RELAY = ("relay-claimed", "published", "confirmed", "deleted")
#: Where overdue steps are looked for.
WATCH = ("overdue-found",)
POINTS = HANDLER + RELAY + WATCH
DIRECTIONS = ("forward", "compensating")

_at = os.environ.get("SAGA_CRASH_AT") or None
_on = os.environ.get("SAGA_CRASH_ON") or None

#: The words that tell of a way back; `prepare` adds the names of the events that do.
_backward = {"Compensating", "Failed"}
#: Told to all sagas at once, or to all services: they go neither way.
_CONTROL = ("SagaEnded", "AbortRequested", "EndRequested")

#: So many turns of the event loop bring a statement or a publish onto the wire, and an answer seldom back.
_TURNS = 20


def prepare(compensation_events: Iterable[str]) -> None:
    """Learn the names of the events that lead back, and see that what is armed exists.

    Raises:
        SettingsError: there is no such point or direction.
    """
    for variable, value, allowed in (("SAGA_CRASH_AT", _at, POINTS), ("SAGA_CRASH_ON", _on, DIRECTIONS)):
        if value is not None and value not in allowed:
            raise SettingsError(f"{variable}={value!r} is not allowed: take one of {', '.join(allowed)}")
    _backward.update(compensation_events)


def here(point: str, signs: Iterable[str | None] = ()) -> None:
    """Die, if this is the place to; the signs are the events or the saga states that it is about."""
    if _at == point and _is_due(signs):
        _die()


async def amid(point: str, doing: Coroutine[Any, Any, T], signs: Iterable[str | None] = ()) -> T:
    """Return what comes of it; if this is the place to die, send it on its way and never learn what comes of it."""
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
