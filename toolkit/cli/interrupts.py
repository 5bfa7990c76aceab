"""What Ctrl-C does at each moment of a command.

While the command starts, and within any import, it ends the process at once: an import may make anything of a
KeyboardInterrupt, or swallow it. While the verb works it is a KeyboardInterrupt, and asyncio's cancellation.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, TypeVar

T = TypeVar("T")

#: What a shell makes of a command that Ctrl-C has ended.
_INTERRUPTED = 128 + signal.SIGINT
#: The module whose functions are on the stack while anything is imported.
_IMPORTING = "importlib._bootstrap"


def on_ctrl_c(do: Any) -> None:
    """Have Ctrl-C do this, unless it is ignored, as in a shell's background."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, do)


def vanish(*_: object) -> None:
    """End the process, quietly and at once."""
    os._exit(_INTERRUPTED)


def interrupt(signum: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, but end the process where it would be raised within an import."""
    above = frame
    while above is not None:
        if above.f_globals.get("__name__") == _IMPORTING:
            vanish()
        above = above.f_back
    signal.default_int_handler(signum, frame)


def heeding(work: Callable[[], T]) -> T:
    """Do a verb's work with Python's own handler, which asyncio and servers look for before they set theirs."""
    before = signal.getsignal(signal.SIGINT)
    if before is not interrupt:
        return work()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return work()
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def heeding_sigterm() -> Iterator[None]:
    """Have SIGTERM end a verb as Ctrl-C does, with the code that a shell makes of it; where Ctrl-C is not ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        yield
        return
    received = list[int]()

    def pass_on(number: int, _: FrameType | None) -> None:
        received.append(number)
        signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        yield
    except KeyboardInterrupt:
        if received:
            raise SystemExit(128 + signal.SIGTERM) from None
        raise
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def held() -> Iterator[None]:
    """Hold a Ctrl-C back while the outcomes are printed; a second one ends the process."""
    before, pressed = signal.getsignal(signal.SIGINT), list[int]()
    if before is interrupt:
        signal.signal(signal.SIGINT, lambda number, _: vanish() if pressed else pressed.append(number))
    try:
        yield
    finally:
        if before is interrupt:
            signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt


def run_async(work: Coroutine[Any, Any, T]) -> T:
    """Run a verb's coroutine; Ctrl-C cancels it where it waits, and is raised again once it has ended.

    Raises:
        EscapedError: a step of services that run within the command ended the event loop.
    """
    import asyncio

    from toolkit.foreign_code.containment import escaped

    try:
        return heeding(lambda: asyncio.run(work))
    except SystemExit as ending:  # a verb leaves by typer's Exit
        raise escaped(ending) from ending
    finally:
        work.close()  # one that never began would be complained of
