"""The connections that the toolkit opens on an engine, which may be a team's: its listeners leave all others alone.

SQLAlchemy's events of errors belong to the dialect, and so to every engine that was derived from one.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from sqlalchemy import event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.ext.asyncio import AsyncEngine

#: The execution option of the toolkit's own engines, and of an engine that it derives from a team's.
OWN = "saga_toolkit"


def listen_to_errors(engine: AsyncEngine, *listeners: Callable[[ExceptionContext], Any]) -> None:
    """Let these handle the errors of the toolkit's connections; registered twice, a listener is called once."""
    for each in listeners:
        event.listen(engine.dialect, "handle_error", _of_own(each))


@cache
def _of_own(listener: Callable[[ExceptionContext], Any]) -> Callable[[ExceptionContext], Any]:
    def listen(context: ExceptionContext) -> Any:
        is_own = context.engine is not None and OWN in context.engine.get_execution_options()
        return listener(context) if is_own else None

    return listen
