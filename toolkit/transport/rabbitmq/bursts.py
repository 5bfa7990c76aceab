"""A burst: messages that are written to the socket as one, and whose confirms are counted.

aiormq publishes message by message: each costs a lock, a future, a timeout and a place in the queue of writes. It has
no public way to publish many. So a burst does what `Channel.basic_publish` does, once for all of its messages, with
these undocumented parts of a channel; where one is missing, aiormq publishes the messages one by one:

- `lock`: messages are numbered in the order of their frames.
- `delivery_tag`: the number of the last message.
- `confirmations`: by number, what the channel resolves at the confirm.
- `message_id_delivery_tag`: by message id, the number under which the channel finds a returned message.
- `max_content_size`: the most bytes of a body in one frame.
- `write_queue`: the frames on their way to the socket; see `write_batching`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aiormq.abc import ChannelFrame
from aiormq.channel import Channel

from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.transport.rabbitmq.message_frames import frames_of
from toolkit.transport.rabbitmq.messages import properties_of

PARTS = ("lock", "delivery_tag", "confirmations", "message_id_delivery_tag", "max_content_size", "write_queue")

#: The outcome of a message until it has one.
_AWAITED = Exception("awaited")


class Burst:
    """Publishes messages together, each to an exchange, under ids that differ, on a channel whose returns raise.

    - `outcomes`: by message, None once it is confirmed, or its error.
    """

    def __init__(self, messages: Sequence[tuple[WireMessage, str]], *, login: str) -> None:
        self.outcomes: list[Exception | None] = [_AWAITED] * len(messages)
        self._messages = messages
        self._ids = [message.message_id or new_id() for message, _ in messages]  # the channel finds a return by its id
        self._login = login
        self._awaited = len(messages)
        self._all_settled: asyncio.Future[None] | None = None

    def settle(self, place: int, outcome: Exception | None) -> None:
        """Keep the outcome of the message at this place, unless it has one."""
        if self.is_settled(place):
            return
        self.outcomes[place] = outcome
        self._awaited -= 1
        if not self._awaited and self._all_settled and not self._all_settled.done():
            self._all_settled.set_result(None)

    def is_settled(self, place: int) -> bool:
        """Whether the message at this place has an outcome."""
        return self.outcomes[place] is not _AWAITED

    def fail(self, error: Exception) -> None:
        """Settle the messages that have no outcome with this error."""
        for place in range(len(self.outcomes)):
            self.settle(place, error)

    async def publish(self, channel: Channel) -> None:
        """Write the messages, and return once all are settled.

        Raises:
            Exception: the channel has closed; the messages that are not settled may have arrived.
        """
        if not all(hasattr(channel, part) for part in PARTS):
            await self._publish_one_by_one(channel)
        elif frames := self._frames(channel):
            async with channel.lock:
                written = ChannelFrame(payload=b"".join(frames.values()), should_close=False)
                await channel.write_queue.put(written)
                # Nothing is awaited between the put and the numbers: no confirm comes before them.
                self._all_settled = channel.create_future()
                numbers = self._number(channel, frames)
            try:
                await self._all_settled
            finally:
                _forget(channel, numbers)

    def _frames(self, channel: Channel) -> dict[int, bytes]:
        """Return each message's frames by its place; a message that AMQP forbids is settled with the error."""
        frames = {}
        for place, (message, exchange) in enumerate(self._messages):
            try:
                frames[place] = frames_of(
                    message,
                    message_id=self._ids[place],
                    exchange=exchange,
                    login=self._login,
                    channel=channel.number,
                    max_content_size=channel.max_content_size,
                )
            except Exception as error:  # noqa: BLE001 -- the other messages go out
                self.settle(place, error)
        return frames

    def _number(self, channel: Channel, places: Iterable[int]) -> dict[str, int]:
        """Let the channel settle these messages, which it has just taken; return their numbers by message id."""
        confirmations: dict[int, Any] = channel.confirmations
        numbers = {}
        for number, place in enumerate(places, channel.delivery_tag + 1):
            confirmations[number] = _Confirmation(self, place)
            numbers[self._ids[place]] = channel.delivery_tag = number
        channel.message_id_delivery_tag.update(numbers)
        return numbers

    async def _publish_one_by_one(self, channel: Channel) -> None:
        async def publish(place: int, message: WireMessage, exchange: str) -> None:
            properties = properties_of(message, login=self._login)
            try:
                await channel.basic_publish(
                    message.body,
                    exchange=exchange,
                    routing_key=message.routing_key,
                    properties=properties,
                    mandatory=True,
                    wait=False,
                )
            except Exception as error:  # noqa: BLE001 -- the other messages have outcomes of their own
                self.settle(place, error)
            else:
                self.settle(place, None)

        await asyncio.gather(*(publish(place, *each) for place, each in enumerate(self._messages)))


class _Confirmation:
    """Takes the place of a future in the channel, and settles one message of a burst.

    It stays there until the broker's confirm even if the burst has ended, in a timeout say: the channel ignores a
    confirm for many messages whose last number it does not know.
    """

    __slots__ = ("_burst", "_place")

    def __init__(self, burst: Burst, place: int) -> None:
        self._burst = burst
        self._place = place

    def done(self) -> bool:
        """Whether the message has an outcome."""
        return self._burst.is_settled(self._place)

    def cancelled(self) -> bool:
        """Whether a confirm that comes too late is no news; so the channel does not log it as a warning."""
        return True

    def set_result(self, _: object) -> None:
        """Settle the message as confirmed."""
        self._burst.settle(self._place, None)

    def set_exception(self, error: Exception) -> None:
        """Settle the message as returned, or as refused by the broker."""
        self._burst.settle(self._place, error)


def _forget(channel: Channel, numbers: Mapping[str, int]) -> None:
    """Remove message ids from the channel, unless they were published once more."""
    known = channel.message_id_delivery_tag
    for message_id, number in numbers.items():
        if known.get(message_id) == number:
            del known[message_id]
