"""Turn any BaseException that foreign code raises into an Exception.

`except Exception` misses a CancelledError that no caller requested, and a task that ends with it ends silently; a
SystemExit in a task ends the event loop. Only Ctrl-C and the cancellation of the task itself pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, TypeVar

from toolkit.errors import EscapedError, describe

T = TypeVar("T")

#: The prefix of the note that names an error's origin.
_RAISED_BY = "raised by "


class contained:  # noqa: N801 -- it reads as the block that it opens
    """Run the block and raise its errors as Exceptions, unless its task is cancelled or the process interrupted.

    Raises:
        EscapedError: `what` raised another BaseException, which is the cause.
    """

    __slots__ = ("_before", "_what")

    def __init__(self, what: str) -> None:
        self._what = what

    def __enter__(self) -> None:
        self._before = _cancellations()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if error is None or isinstance(error, Exception):  # the callers handle an Exception
            return
        what, is_cancelled = self._what, _cancellations() > self._before
        if isinstance(error, KeyboardInterrupt):
            _note_origin(error, what)
        elif isinstance(error, asyncio.CancelledError):
            if not is_cancelled:
                raise EscapedError(
                    f"{what} raised CancelledError without being cancelled: it awaited a task, a future or a scope "
                    "that was cancelled, or cancelled its own task; catch the CancelledError there"
                ) from error
        else:
            _note_origin(error, what)
            if is_cancelled:  # a `wait_for` or `gather` in it swallowed its task's cancellation
                raise asyncio.CancelledError from error
            fault = f"{what} raised {describe(error)}, which is not an Exception; raise an Exception"
            raise EscapedError(fault) from error


async def contain(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, contained."""
    with contained(what):
        return await coroutine


async def in_own_task(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, contained, in a task of its own: if it cancels its task, the caller's goes on."""
    with contained(what):
        return await asyncio.create_task(contain(what, coroutine))


def escaped(ending: BaseException) -> EscapedError:
    """Return the error for an exception that ended the event loop; it names the step if a contained block noted it."""
    where = _origin(ending) or "a task or callback of the service"
    return EscapedError(f"{where} ended the process: {describe(ending)}; raise an Exception instead")


def _origin(error: BaseException) -> str | None:
    notes = (each for each in getattr(error, "__notes__", ()) if each.startswith(_RAISED_BY))
    return next((each.removeprefix(_RAISED_BY) for each in notes), None)


def _note_origin(error: BaseException, what: str) -> None:
    """Note the innermost block that raised an error; the event loop re-raises the same object."""
    if _origin(error) is None:
        error.add_note(f"{_RAISED_BY}{what}")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
