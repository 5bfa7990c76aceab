"""How a command ends: its exit codes, and an expected error as one line on standard error.

An unexpected error keeps its traceback: it is a bug.
"""

from __future__ import annotations

import errno
import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from typing import Any

import typer
from typer.core import TyperGroup

from toolkit.errors import (
    AmbiguousSagaError,
    BrokerRefusesError,
    DatabaseUnavailableError,
    DeclarationError,
    InvalidAnswerError,
    MissingExtraError,
    NoServiceError,
    NotAllowedError,
    SagaError,
    SchemaVersionError,
    SettingsError,
    TokenRefusedError,
    UndeclaredStepsError,
    UnreachableError,
    UnroutableError,
)

#: As `toolkit.configuration.settings` has it, which takes long to import: this runs at each start.
_PREFIX = "SAGA_"


class ExitCode(IntEnum):
    """The exit codes of a command."""

    FINE = 0
    PROBLEM = 1
    """A saga failed, or a check found something."""
    WRONG_USE = 2
    AWAY = 3
    """Something can't be reached, or was not done in time."""
    UNFINISHED = 4
    """A check found nothing wrong, and could not check all."""
    CLOSED_PIPE = 141
    """The reader of the output is gone; a shell's code for a program that SIGPIPE ended."""


class UsageError(SagaError):
    """The command was called wrongly; the text names the fault, and what is possible."""


_CODES: dict[type[SagaError], ExitCode] = {
    UsageError: ExitCode.WRONG_USE,
    SettingsError: ExitCode.WRONG_USE,
    NoServiceError: ExitCode.WRONG_USE,
    DeclarationError: ExitCode.WRONG_USE,
    NotAllowedError: ExitCode.WRONG_USE,
    InvalidAnswerError: ExitCode.WRONG_USE,
    MissingExtraError: ExitCode.WRONG_USE,
    BrokerRefusesError: ExitCode.WRONG_USE,
    SchemaVersionError: ExitCode.WRONG_USE,
    UndeclaredStepsError: ExitCode.WRONG_USE,
    TokenRefusedError: ExitCode.WRONG_USE,
    AmbiguousSagaError: ExitCode.WRONG_USE,
    UnreachableError: ExitCode.AWAY,
    UnroutableError: ExitCode.AWAY,
    DatabaseUnavailableError: ExitCode.AWAY,
}


#: What the system answers to a write where there is no room, no such stream, or a device that fails.
_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EBADF, errno.EIO)


class ClosedOutput(io.TextIOBase):
    """Standard output where the command was started without one (`>&-`): only a verb that prints something fails."""

    def write(self, _: str) -> int:
        """Refuse as the system does."""
        raise OSError(errno.EBADF, "it is closed")


class VerbGroup(TyperGroup):
    """The verbs, in the order of their registration; turns an expected error into its line and its exit code."""

    def make_context(self, *arguments: Any, **options: Any) -> Any:
        """Read the arguments; help and version are printed meanwhile."""
        with _written():
            return super().make_context(*arguments, **options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Refuse what is no text, wherever it was to go: no id, no setting and no message can hold it."""
        settings = (f"{name}={value}" for name, value in os.environ.items() if name.startswith(_PREFIX))
        for each in (*args, *settings):
            if not _is_text(each):
                raise typer.BadParameter(f"{each!r} is not UTF-8")
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the chosen verb."""
        try:
            with _written():
                done = super().invoke(ctx)
                sys.stdout.flush()
                return done
        except SagaError as error:
            complain(f"error: {_described(error)}")
            raise typer.Exit(code_of(error)) from error


def code_of(error: SagaError) -> ExitCode:
    """Return the exit code of a command that this error ends."""
    return _CODES.get(type(error), ExitCode.PROBLEM)


@contextmanager
def _written() -> Iterator[None]:
    """End the command where what it prints can't be written; a file's errors, which name the file, are others."""
    try:
        yield
    except BrokenPipeError as error:
        _silence_output()
        raise typer.Exit(ExitCode.CLOSED_PIPE) from error
    except OSError as error:
        if error.errno not in _UNWRITABLE or error.filename is not None:
            raise
        _silence_output()
        complain(
            f"error: standard output can't be written: {error.strerror}; what was done until then is done. "
            "Send the output to where there is room, or to /dev/null"
        )
        raise typer.Exit(ExitCode.AWAY) from error


def _described(error: SagaError) -> str:
    """Return the error's text, with the cure as a command line has it."""
    if isinstance(error, AmbiguousSagaError):
        return f"{error}: {' or '.join(f'--type {each}' for each in error.types)}"
    if not isinstance(error, TokenRefusedError):
        return str(error)
    cure = f"show the token of {error.service}: export SAGA_API_TOKEN=… with the one that it was started with"
    fault = "the one that is set here is another" if error.is_shown else "none is set here"
    return f"{error.address} answers 401: {cure}; {fault}"


def complain(line: str) -> None:
    """Print a line that is no data to standard error."""
    typer.echo(printable(" ".join(line.split())), err=True)


def printable(text: str, *, keep: str = "") -> str:
    """Return a text with its control characters written out: no id may steer the reader's terminal."""
    return "".join(each if each.isprintable() or each in keep else repr(each)[1:-1] for each in text)


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 come as lone surrogates
        return False
    return True


def _silence_output() -> None:
    """Discard what is still buffered; Python would complain of it at its end."""
    if isinstance(sys.stdout, ClosedOutput):
        return
    with open(os.devnull, "wb") as nowhere:
        os.dup2(nowhere.fileno(), sys.stdout.fileno())


def leave(code: ExitCode) -> None:
    """End the command with this code, unless all is fine."""
    if code:
        sys.stdout.flush()
        raise typer.Exit(code)
