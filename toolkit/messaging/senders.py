"""Checks that a message's sender may send it: the broker checks routing keys and logins, and no message types.

The broker lets a login publish under some routing keys only, so an event is valid under its own key alone. The AMQP
property `user-id`, which the broker verifies, names the login; when the settings name the logins of an event's owner,
it has to be one of these. A message from the service itself, a retry or a redrive, keeps its key, its login in the
header `sent-by`, and in `came-by` the route on which the broker checked no key. A coordinator's command has an event of
any owner, under a key of the coordinator's own: it is accepted from that coordinator alone that the settings name.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from toolkit.declaration.events import EndRequested, Event, Saga, SagaEnded, SagaWaits, routing_key
from toolkit.errors import UnreadableError
from toolkit.messaging.envelope import CAME_BY, SENT_BY, WireMessage
from toolkit.protocol.commands import Address

#: The broker's header on a message that a queue has dead-lettered; it checks no right when it forwards one.
FORWARDED = "x-death"


def detour_of(exchange: str, shared: str, headers: Mapping[str, object]) -> str | None:
    """Return the route of a message through this exchange if the broker checked no key on it, else None."""
    if exchange not in ("", shared):
        return f"the exchange {exchange!r}"
    return "a queue that dead-lettered it" if FORWARDED in headers else None


class Senders:
    """The senders that one service accepts.

    - `exchange`: the exchange of all events; the broker checks the keys of messages that are published to it.
    - `queue`: the service's queue, and its own exchange, to which no other login may write.
    - `logins`: by owner, the logins that may send its events; other owners are not checked. A coordinator is the owner
      of its commands.
    - `coordinators`: by step, the coordinator that asks it.
    """

    def __init__(
        self,
        *,
        exchange: str = "",
        queue: str = "",
        logins: Mapping[str, Collection[str]] | None = None,
        coordinators: Mapping[str, str] | None = None,
    ) -> None:
        self._exchange = exchange
        self._queue = queue
        self._logins = logins or {}
        self._coordinators = coordinators or {}

    def check(self, event_type: type[Event], wire: WireMessage, address: Address | None = None) -> None:
        """Check that a message may be such an event, before anything else of it is read.

        Raises:
            UnreadableError: it came by a route on which the broker checks no key, under another key than the event's
                own, or from a login that is not its owner's.
        """
        self._check_route(wire)
        if address and event_type not in (SagaEnded, EndRequested, SagaWaits):
            self._check_coordinator(address)
            self._check_login(address.coordinator, wire)
        else:
            self._check_key(event_type, wire)
            self._check_login(event_type.__owner__, wire)

    def check_end(self, ended: SagaEnded, saga: Saga, wire: WireMessage) -> None:
        """Check that an end comes from a service that may end such sagas with this outcome.

        Raises:
            UnreadableError: it comes from another.
        """
        for sagas, event_type in ((ended.completed, saga.completes_with), (ended.failed, saga.fails_with)):
            if sagas:
                self._check_login(event_type.__owner__, wire)

    def _check_coordinator(self, address: Address) -> None:
        known = self._coordinators.get(address.step)
        if known != address.coordinator:
            whose = f"asked by {known}" if known else "asked by no coordinator"
            detail = f"{address.coordinator} is to {address.verb} {address.step}, which is {whose} here"
            raise UnreadableError("wrong coordinator", f"{detail}: name the coordinator in SAGA_ASKED_BY")

    def _check_route(self, wire: WireMessage) -> None:
        if wire.exchange is None:
            return
        # A message through the service's own exchange carries its first route.
        is_again = wire.exchange == self._queue
        detour = wire.headers.get(CAME_BY) if is_again else detour_of(wire.exchange, self._exchange, wire.headers)
        if detour:
            cure = f"publish it to the exchange {self._exchange!r} itself"
            raise UnreadableError("forwarded", f"it was forwarded by {detour}, its key unchecked: {cure}")

    def _check_key(self, event_type: type[Event], wire: WireMessage) -> None:
        own, found = routing_key(event_type), wire.routing_key
        # A former release sent its retries under the queue's name: only the default exchange routes that here.
        if found == own or (found == self._queue and wire.exchange in ("", self._queue)):
            return
        detail = f"{event_type.__name__} came under the key {found!r}, and its own is {own!r}: publish it under that"
        raise UnreadableError("wrong routing key", detail)

    def _check_login(self, owner: str, wire: WireMessage) -> None:
        if (logins := self._logins.get(owner)) is None:
            return
        sender = wire.headers.get(SENT_BY)
        if sender is None and wire.exchange == self._queue:
            return  # a retry of a former release, which kept no login; only this service publishes here
        if sender not in logins:
            source = f"the login {sender!r}" if sender else "a client that sets no user-id"
            detail = (
                f"only {owner} may send it; it came from {source}; SAGA_LOGINS names {', '.join(logins)} for {owner}"
            )
            raise UnreadableError("wrong sender", f"{detail}: send it by one of these, or name the login there")
