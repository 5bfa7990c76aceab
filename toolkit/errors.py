"""Every error of the toolkit, on one base; each says what was attempted and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class SagaError(Exception):
    """The base of all errors that the toolkit raises itself."""


class DeclarationError(SagaError):
    """A participant is declared wrongly; raised while its module is imported, before anything runs."""

    def __init__(self, function: str, fault: str, cure: str) -> None:
        super().__init__(f"{function}: {fault}. {cure}.")
        self.function = function
        self.fault = fault
        self.cure = cure


class SettingsError(SagaError):
    """A setting is missing or out of its bounds; names the variable, the value and what is allowed."""


class UndeclaredStepsError(SagaError):
    """The log holds unfinished sagas at steps that this release does not declare; running on would do damage."""


class UnreadableError(SagaError):
    """A message can't be understood; `reason` is the short, stable word under which it is dead-lettered."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class StepError(SagaError):
    """A step broke the contract of its declaration, by what it returned or by what it did to its session."""


class EscapedError(SagaError):
    """Code that the toolkit ran raised what is no Exception: a cancellation that nothing asked for, or SystemExit."""


class LoopEndedError(SagaError):
    """A background loop of a service ended though nothing had stopped it; the service can't go on without it."""


class ContentionError(SagaError):
    """Two transactions were in each other's way; this one is tried again, which is no failed attempt."""


class PositionTakenError(ContentionError):
    """Somebody else appended to a step's stream first."""


class UnrecordedError(SagaError):
    """The database did not take what the toolkit itself was to write; its cause says why."""


class DatabaseUnavailableError(SagaError):
    """The service's database does not answer; nothing is acknowledged until it does."""


class UnroutableError(SagaError):
    """The broker took a message that no queue is bound to, and gave it back."""


class NotAllowedError(SagaError):
    """A service does not let us do what was asked for; the text says what it wants."""


class TokenRefusedError(NotAllowedError):
    """A service wants another token than it was shown, or any at all: `is_shown` says which."""

    def __init__(self, service: str, address: str, told: str, *, is_shown: bool) -> None:
        super().__init__(f"{address} answers 401: {told}")
        self.service = service
        self.address = address
        self.is_shown = is_shown


class AmbiguousSagaError(SagaError):
    """Sagas of several types have the id that was given; whoever asks has to name the type."""

    def __init__(self, saga_id: str, types: Sequence[str]) -> None:
        super().__init__(f"sagas of several types have the id {saga_id!r}: {', '.join(types)}; say which type is meant")
        self.saga_id = saga_id
        self.types = tuple(types)


class UnreachableError(SagaError):
    """A service, a database or the broker that a command needs does not answer."""


class BrokerRefusesError(SagaError):
    """The broker is there, and refuses what a service needs; only a person can change that."""


def describe(error: BaseException) -> str:
    """Return an exception as one line, its type first; bounded, since it goes into tables and log lines."""
    text = text_of(error).strip().replace("\n", " ").replace("\0", "")
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """Return an error's text, though its own class fails to make one, and as characters that can be written."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except Exception as fault:  # noqa: BLE001 -- `__str__` is the service's own code
        return f"(its text could not be made: {type(fault).__name__})"
