"""What is no Exception becomes one where code that the toolkit does not own comes to its end.

`except Exception` misses a CancelledError that nothing asked for, and a task that ends with it ends without a word; a
SystemExit in a task ends the event loop. Only the cancellation of the task itself passes, and Ctrl-C.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from toolkit.errors import EscapedError
from toolkit.retry import describe

T = TypeVar("T")


@contextmanager
def contained(what: str) -> Iterator[None]:
    """Raise what ends the block as an Exception, unless its own task is cancelled or the process interrupted.

    Raises:
        EscapedError: `what` raised something else, which is its cause.
    """
    before = _cancellations()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except asyncio.CancelledError as error:
        if _cancellations() > before:
            raise
        raise EscapedError(
            f"{what} ended in CancelledError, and nothing had cancelled it: it awaited a task, a future or a scope "
            "that was cancelled, or cancelled its own task; catch the CancelledError there"
        ) from error
    except BaseException as error:
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


def _cancellations() -> int:
    task = asyncio.current_task()
    return task.cancelling() if task else 0
