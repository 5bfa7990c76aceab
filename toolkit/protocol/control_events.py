"""The names of the control messages: events of the toolkit itself, which every service consumes."""

#: The message that closes sagas.
SAGA_ENDED = "SagaEnded"
#: The message that asks each service to refuse what it has not begun.
ABORT_REQUESTED = "AbortRequested"
