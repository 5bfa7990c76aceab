"""Whether a message is what its sender may say: the broker knows keys and logins, and not what a message is.

The broker lets a login publish under some routing keys only, so an event counts under its own key alone. Which login
has sent it stands in the AMQP property `user-id`, which the broker verifies; where the settings name the logins of an
event's owner, it has to be one of these. What comes again from the service itself keeps both: its key, and its login in
the header `sent-by`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from toolkit.declaration.events import Event, Saga, SagaEnded, routing_key
from toolkit.errors import UnreadableError
from toolkit.messaging.envelope import SENT_BY, WireMessage

#: What the broker writes on a message that a queue has given up and passed on; it checks no right for that.
_FORWARDED = "x-death"


class Senders:
    """What a service knows of who may send it what.

    - `exchange`: the one that all events go through; the broker checks the keys of what is published to it.
    - `queue`: the service's queue, and its own exchange, which no other login writes.
    - `logins`: by owner, the logins that may send its events; an owner that is not named is not checked.
    """

    def __init__(
        self, *, exchange: str = "", queue: str = "", logins: Mapping[str, Collection[str]] | None = None
    ) -> None:
        self._exchange = exchange
        self._queue = queue
        self._logins = logins or {}

    def check(self, event_type: type[Event], wire: WireMessage) -> None:
        """See that a message may be such an event; nothing else of it has been believed yet.

        Raises:
            UnreadableError: it came by a way on which the broker checks no key, under another key than the event's
                own, or from a login that is none of its owner's.
        """
        self._check_way(wire)
        self._check_key(event_type, wire)
        self._check_login(event_type, wire)

    def check_end(self, ended: SagaEnded, saga: Saga, wire: WireMessage) -> None:
        """See that it comes from a service that ends such sagas, with this outcome.

        Raises:
            UnreadableError: it comes from another.
        """
        for sagas, event_type in ((ended.completed, saga.completes_with), (ended.failed, saga.fails_with)):
            if sagas:
                self._check_login(event_type, wire)

    def _check_way(self, wire: WireMessage) -> None:
        if wire.exchange in (None, self._queue):
            return
        if wire.exchange not in ("", self._exchange) or _FORWARDED in wire.headers:
            cure = f"publish it to the exchange {self._exchange!r} itself"
            raise UnreadableError("forwarded", f"it came from {wire.exchange!r} by a detour, unchecked: {cure}")

    def _check_key(self, event_type: type[Event], wire: WireMessage) -> None:
        own, found = routing_key(event_type), wire.routing_key
        # Under the queue's name a release of before has sent its retries: only the default exchange brings that here.
        if found == own or (found == self._queue and wire.exchange in ("", self._queue)):
            return
        told = f"{event_type.__name__} came under the key {found!r}, and its own is {own!r}: publish it under that"
        raise UnreadableError("wrong routing key", told)

    def _check_login(self, event_type: type[Event], wire: WireMessage) -> None:
        owner = event_type.__owner__
        if (logins := self._logins.get(owner)) is None:
            return
        sender = wire.headers.get(SENT_BY)
        if sender is None and wire.exchange == self._queue:
            return  # a retry of a release that kept no login; from here it is
        if sender not in logins:
            said = f"the login {sender!r}" if sender else "a client that sets no user-id"
            told = (
                f"only {owner} may send it; it came from {said}, and SAGA_LOGINS names {', '.join(logins)} for {owner}"
            )
            raise UnreadableError("wrong sender", f"{told}: send it by one of these, or name the login there")
