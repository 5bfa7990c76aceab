"""What identifies a saga, and a step of it."""

from __future__ import annotations

#: One saga: its type and its id. Two sagas of different types may have the same id, even in one service.
SagaKey = tuple[str, str]
#: One step of one saga: the saga's type and id, and the step's name.
StreamKey = tuple[str, str, str]


#: The ids of the outbox rows that announce deadlines, and of those that remind of open questions, begin with this.
TIMER = "timer:"


def timer_id(queue: str, key: StreamKey) -> str:
    """Return the id of the outbox row that announces the deadline of a join, or of a step that a coordinator asked.

    Each step of each saga has one such id.
    """
    return f"{TIMER}{queue}:{':'.join(key)}"


def reminder_id(queue: str, key: StreamKey, number: int) -> str:
    """Return the id of the outbox row that reminds of a step's open question for the `number`-th time."""
    return f"{timer_id(queue, key)}:reminder-{number}"
