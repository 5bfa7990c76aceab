"""Choreographed sagas: each service runs its step, writes its log and emits the next event in one transaction.

The names below are imported on first use: their dependencies take a second, and `saga --help` needs none of them.
"""

TYPE_CHECKING = False  # as mypy and editors know it; `typing` is imported while Ctrl-C still has a traceback

if TYPE_CHECKING:
    from toolkit.configuration.settings import Settings
    from toolkit.declaration.events import Answer, Event, IdempotencyKey, Refusal, Saga, SagaId, Sensitive
    from toolkit.declaration.middleware import CallNext, Middleware
    from toolkit.declaration.participant import Compensation, Participant, Step
    from toolkit.declaration.retry_policy import Retry, RetryPolicy
    from toolkit.declaration.service import Service
    from toolkit.embedding.transactions import answer, answer_sync, start, start_sync
    from toolkit.errors import DeclarationError, SagaError
    from toolkit.orchestration.orchestrator import Parallel, Received, SagaOrchestrator, SagaStep

__all__ = [
    "Answer",
    "CallNext",
    "Compensation",
    "DeclarationError",
    "Event",
    "IdempotencyKey",
    "Middleware",
    "Parallel",
    "Participant",
    "Received",
    "Refusal",
    "Retry",
    "RetryPolicy",
    "Saga",
    "SagaError",
    "SagaId",
    "SagaOrchestrator",
    "SagaStep",
    "Sensitive",
    "Service",
    "Settings",
    "Step",
    "answer",
    "answer_sync",
    "start",
    "start_sync",
]

#: The module of each public name; mypy and editors use the imports above.
_HOMES = {
    "Answer": "declaration.events",
    "CallNext": "declaration.middleware",
    "Compensation": "declaration.participant",
    "DeclarationError": "errors",
    "Event": "declaration.events",
    "IdempotencyKey": "declaration.events",
    "Middleware": "declaration.middleware",
    "Parallel": "orchestration.orchestrator",
    "Participant": "declaration.participant",
    "Received": "orchestration.orchestrator",
    "Refusal": "declaration.events",
    "Retry": "declaration.retry_policy",
    "RetryPolicy": "declaration.retry_policy",
    "Saga": "declaration.events",
    "SagaError": "errors",
    "SagaId": "declaration.events",
    "SagaOrchestrator": "orchestration.orchestrator",
    "SagaStep": "orchestration.orchestrator",
    "Sensitive": "declaration.events",
    "Service": "declaration.service",
    "Settings": "configuration.settings",
    "Step": "declaration.participant",
    "answer": "embedding.transactions",
    "answer_sync": "embedding.transactions",
    "start": "embedding.transactions",
    "start_sync": "embedding.transactions",
}

if not TYPE_CHECKING:  # to mypy a module with `__getattr__` has every name
    from toolkit.lazy_names import on_first_use

    __getattr__, __dir__ = on_first_use(__name__, _HOMES)
