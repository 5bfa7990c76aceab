"""The toolkit's errors, on one base class; each text names what was attempted and what to do next."""

from __future__ import annotations

from collections.abc import Sequence


class SagaError(Exception):
    """The base class of all errors that the toolkit raises itself."""


class DeclarationError(SagaError):
    """A declaration is wrong; raised while its module is imported, or at the start, before anything runs."""

    def __init__(self, function: str, fault: str, cure: str) -> None:
        super().__init__(f"{function}: {fault}. {cure}.")
        self.function = function
        self.fault = fault
        self.cure = cure


class SettingsError(SagaError):
    """A setting is missing or out of bounds; the text has the variable, the value and the allowed values."""


class MissingExtraError(SagaError, ImportError):
    """A feature's packages are not installed; the text has the command that installs them."""

    def __init__(self, feature: str, extra: str, module: str) -> None:
        missing = module.partition(".")[0]
        super().__init__(f"{feature} needs {missing}, which is not installed: pip install 'saga-toolkit[{extra}]'")
        self.extra = extra


class NoServiceError(SagaError):
    """No service to read is named or found, or one is named wrongly; the text shows how to name one."""


class ScenarioError(SagaError):
    """A scenario names a service, a step or an event that is not declared; the text lists those that are."""


class WorldError(SagaError):
    """A test asks its world for what it does not have; the text lists what it has."""


class SchemaVersionError(SagaError):
    """The toolkit's tables are not those of this release, so the service does not start; the text has the command."""


class UndeclaredStepsError(SagaError):
    """The log holds unfinished sagas at steps that this release does not declare, so the service does not start."""


class UnreadableError(SagaError):
    """A message can't be decoded; `reason` is the short, stable word under which it is dead-lettered."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class SeedError(SagaError):
    """A service's seed failed, so the service does not start; the cause has the reason."""


class StepError(SagaError):
    """A step violated its declaration, by its return value or by its use of the session."""


class EscapedError(SagaError):
    """Foreign code raised a BaseException that is not an Exception: a cancellation of its own, or SystemExit."""


class LoopEndedError(SagaError):
    """A background loop ended without being stopped; the service can't go on without it."""


class ContentionError(SagaError):
    """Two transactions conflicted; this one is repeated, which does not count as a failed attempt."""


class PositionTakenError(ContentionError):
    """Another transaction appended to the step's stream first."""


class RowsNotWrittenError(SagaError):
    """The database rejected a row that a step left in its session; the cause has the reason."""


class NotCommittedError(SagaError):
    """The database rejected the commit of a batch, for a deferred constraint say; the cause has the reason."""


class UnrecordedError(SagaError):
    """The database rejected a row of the toolkit's own tables; the cause has the reason."""


class DatabaseUnavailableError(SagaError):
    """The service's database does not answer; no delivery is acknowledged until it does."""


class UnroutableError(SagaError):
    """The broker returned a message that no queue is bound to."""


class NotAllowedError(SagaError):
    """A service denies a request; the text names the missing permission."""


class InvalidAnswerError(SagaError):
    """An answer is not one that a step waits for: its name, a field or a value is wrong."""


class NotStartingError(SagaError):
    """An event starts no saga, or none of those that a client was opened for."""


class TokenRefusedError(NotAllowedError):
    """A service rejects the request's token, or requires one if `is_shown` is false."""

    def __init__(self, service: str, address: str, detail: str, *, is_shown: bool) -> None:
        super().__init__(f"{address} answers 401: {detail}")
        self.service = service
        self.address = address
        self.is_shown = is_shown


class AmbiguousSagaError(SagaError):
    """Sagas of several types have the given id, so the request has to name the type."""

    def __init__(self, saga_id: str, types: Sequence[str]) -> None:
        super().__init__(f"sagas of several types have the id {saga_id!r}: {', '.join(types)}; name the type")
        self.saga_id = saga_id
        self.types = tuple(types)


class UnreachableError(SagaError):
    """A service, a database or the broker that a command needs does not answer."""


class BrokerRefusesError(SagaError):
    """The broker answers, and rejects what a service needs; an operator has to change that."""


def describe(error: BaseException) -> str:
    """Return an exception as one line, its type first; at most 500 characters, for tables and log lines."""
    text = text_of(error).strip().replace("\n", " ").replace("\0", "")
    return f"{type(error).__name__}: {text}"[:500] if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """Return an error's text in encodable characters, even if its own class can't make one."""
    try:
        return str(error).encode(errors="backslashreplace").decode()
    except Exception as fault:  # noqa: BLE001 -- `__str__` is the service's own code
        return f"(its text could not be made: {type(fault).__name__})"
