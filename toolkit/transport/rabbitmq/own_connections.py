"""Tells the toolkit's connections from those of the application around it.

The toolkit reads frames and decodes properties in its own way, and the client library has no public place for that: the
library's functions are replaced, for the whole process. So the replacements ask here, and treat a connection that the
application opens as the library does.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_IS_OWN: ContextVar[bool] = ContextVar("is_own_connection", default=False)


@contextmanager
def connecting() -> Iterator[None]:
    """Mark the connections that are opened in the block: the tasks that read and reconnect them inherit the mark."""
    token = _IS_OWN.set(True)
    try:
        yield
    finally:
        _IS_OWN.reset(token)


def is_own() -> bool:
    """Whether this task serves a connection of the toolkit."""
    return _IS_OWN.get()
