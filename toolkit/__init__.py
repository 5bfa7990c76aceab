"""Choreographed sagas: each service does its step, writes its log and emits the next event in one transaction.

The names below are imported at need: what they bring with them takes a second, and `saga --help` needs none of it.
"""

TYPE_CHECKING = False  # as mypy and editors know it; `typing` is imported while Ctrl-C still has a traceback

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.errors import DeclarationError, SagaError
    from toolkit.events import Event, IdempotencyKey, Refusal, Saga, SagaId, Sensitive
    from toolkit.participant import Participant
    from toolkit.retry import Retry, RetryPolicy
    from toolkit.service import Service

__all__ = [
    "DeclarationError",
    "Event",
    "IdempotencyKey",
    "Participant",
    "Refusal",
    "Retry",
    "RetryPolicy",
    "Saga",
    "SagaError",
    "SagaId",
    "Sensitive",
    "Service",
    "Settings",
]

#: The module of each public name; the imports above say the same to mypy and to editors.
_HOMES = {
    "DeclarationError": "errors",
    "Event": "events",
    "IdempotencyKey": "events",
    "Participant": "participant",
    "Refusal": "events",
    "Retry": "retry",
    "RetryPolicy": "retry",
    "Saga": "events",
    "SagaError": "errors",
    "SagaId": "events",
    "Sensitive": "events",
    "Service": "service",
    "Settings": "configuration.settings",
}

if not TYPE_CHECKING:  # to mypy a module with this function has every name

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        found = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
        return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
