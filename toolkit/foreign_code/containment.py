"""Turn any BaseException that foreign code raises into an Exception.

`except Exception` misses a CancelledError that no caller requested, and a task that ends with it ends silently; a
SystemExit in a task ends the event loop. Only Ctrl-C and the cancellation of the task itself pass.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from toolkit.errors import EscapedError, describe

T = TypeVar("T")

#: The prefix of the note that names an error's origin.
_RAISED_BY = "raised by "


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Run the block and raise its errors as Exceptions, unless its task is cancelled or the process interrupted.

    Raises:
        EscapedError: `what` raised another BaseException, which is the cause.
    """
    before = _cancellations()
    try:
        yield
    except Exception:  # the callers handle it
        raise
    except KeyboardInterrupt as error:
        _note_origin(error, what)
        raise
    except asyncio.CancelledError as error:
        if _cancellations() > before:
            raise
        raise EscapedError(
            f"{what} raised CancelledError without being cancelled: it awaited a task, a future or a scope "
            "that was cancelled, or cancelled its own task; catch the CancelledError there"
        ) from error
    except BaseException as error:
        _note_origin(error, what)
        if _cancellations() > before:  # a `wait_for` or `gather` in it swallowed its task's cancellation
            raise asyncio.CancelledError from error
        raise EscapedError(f"{what} raised {describe(error)}, which is not an Exception; raise an Exception") from error


async def contain(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, contained."""
    with contained(what):
        return await coroutine


async def apart(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
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
