"""The names of the control messages: events of the toolkit itself, which every service consumes."""

#: The message that closes sagas.
SAGA_ENDED = "SagaEnded"
#: The message that asks each service to refuse what it has not begun.
ABORT_REQUESTED = "AbortRequested"
#: The message that asks for the end of a saga, which a service has missed.
END_REQUESTED = "EndRequested"
#: The message that keeps a saga from being overdue while a step waits for an answer.
SAGA_WAITS = "SagaWaits"
#: All of them.
CONTROL_NAMES = (SAGA_ENDED, ABORT_REQUESTED, END_REQUESTED, SAGA_WAITS)
