"""What is no Exception becomes one where code that the toolkit does not own comes to its end.

`except Exception` misses a CancelledError that nothing asked for, and a task that ends with it ends without a word; a
SystemExit in a task ends the event loop. Only the cancellation of the task itself passes, and Ctrl-C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from toolkit.errors import EscapedError, describe

T = TypeVar("T")

#: How the note begins that names an error's origin.
_RAISED_BY = "raised by "


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Raise what ends the block as an Exception, unless its own task is cancelled or the process interrupted.

    Raises:
        EscapedError: `what` raised something else, which is its cause.
    """
    before = _cancellations()
    try:
        yield
    except Exception:  # an Exception is what the callers expect
        raise
    except KeyboardInterrupt as error:
        _note_origin(error, what)
        raise
    except asyncio.CancelledError as error:
        if _cancellations() > before:
            raise
        raise EscapedError(
            f"{what} ended in CancelledError, and nothing had cancelled it: it awaited a task, a future or a scope "
            "that was cancelled, or cancelled its own task; catch the CancelledError there"
        ) from error
    except BaseException as error:
        _note_origin(error, what)
        if _cancellations() > before:  # a `wait_for` or `gather` in it has swallowed the cancellation of its task
            raise asyncio.CancelledError from error
        raise EscapedError(f"{what} raised what is no Exception: {describe(error)}; raise an Exception") from error


async def contain(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine, contained."""
    with contained(what):
        return await coroutine


async def apart(what: str, coroutine: Coroutine[Any, Any, T]) -> T:
    """Await a coroutine in a task of its own, contained: the task that it may cancel is not the caller's."""
    with contained(what):
        return await asyncio.create_task(contain(what, coroutine))


def escaped(ending: BaseException) -> EscapedError:
    """Return the error for what ended the event loop: it names the step, where a contained block knows it."""
    where = _origin(ending) or "a task or callback of the service"
    return EscapedError(f"{where} ended the process: {describe(ending)}; raise an Exception instead")


def _origin(error: BaseException) -> str | None:
    notes = (each for each in getattr(error, "__notes__", ()) if each.startswith(_RAISED_BY))
    return next((each.removeprefix(_RAISED_BY) for each in notes), None)


def _note_origin(error: BaseException, what: str) -> None:
    """Note the innermost block that an error came through: the event loop passes the same object on."""
    if _origin(error) is None:
        error.add_note(f"{_RAISED_BY}{what}")


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
