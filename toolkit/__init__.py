"""Choreographed sagas: each service does its step, writes its log and emits the next event in one transaction."""

from toolkit.errors import DeclarationError, SagaError
from toolkit.events import Event, IdempotencyKey, Refusal, Saga, SagaId, Sensitive
from toolkit.participant import Participant
from toolkit.retry import Retry, RetryPolicy
from toolkit.service import Service
from toolkit.settings import Settings

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
