"""The messages that one transaction keeps as dead letters, each with its reason."""

from __future__ import annotations

from datetime import datetime

from toolkit.declaration.text_redaction import redact
from toolkit.errors import describe
from toolkit.ids import new_id
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message, WireMessage
from toolkit.persistence.dead_letters import DeadLetter


class KeptMessages:
    """Collects the dead letters of one service."""

    def __init__(self, service: str, now: datetime) -> None:
        self.dead_letters: list[DeadLetter] = []
        self._service = service
        self._now = now

    def keep(self, reason: str, error: str, message: WireMessage, **facts: object) -> None:
        """Keep a message as a dead letter; `facts` are further fields of `DeadLetter`."""
        known = {"service": self._service, "reason": reason, "error": error, "message": message, "at": self._now}
        self.dead_letters.append(DeadLetter(id=new_id(), **known, **facts))  # type: ignore[arg-type]  # by name

    def unreadable(self, item: Unreadable) -> None:
        """Keep a message that can't be decoded."""
        self.keep(item.reason, item.detail, item.wire, saga_type=item.saga_type)

    def misdirected(self, message: Message, error: str) -> None:
        """Keep a coordinator's command that its step can't take."""
        address, event = message.envelope.address, message.envelope.event_type
        text = f"{address.verb} {address.step} came with {event}: {error}" if address else error
        self.keep("wrong command", text, _as_delivered(message))

    def unrecordable(self, item: Message | Unreadable, error: BaseException) -> None:
        """Keep a message for which the saga log takes neither an outcome nor a failure."""
        text = describe(error)
        if isinstance(item, Message):
            text = redact(type(item.event), item.body, text)
        self.keep("not recordable", text, _as_delivered(item))

    def pruned(self, message: Message) -> None:
        """Keep a message whose saga may have been pruned: the log no longer shows whether it was handled."""
        error = f"{message.envelope.event_type} is older than what was pruned from the saga log"
        self.keep("older than the log", error, _as_delivered(message))


def _as_delivered(item: Message | Unreadable) -> WireMessage:
    return item.wire if isinstance(item, Unreadable) else item.on_attempt(item.envelope.attempt)
