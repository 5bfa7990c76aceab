"""One write to the socket for all the frames that a channel receives while the socket takes the ones before.

aiormq writes frame by frame, and a system call costs more than all else of a publish. It has no public way to batch:
this wraps a channel's `write_queue`, the one private attribute that is touched. On a channel without it frames are
written one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.channel import Channel

#: So many bytes wait for a connection that takes none; the caller of the next frame waits, too.
_MOST = 1024 * 1024


class JoinedWrites:
    """Replaces a channel's queue of outgoing frames.

    A frame is written at once, and those that come until the socket has taken it are written as one: a broker that
    reads nothing does not fill this process's memory.
    """

    def __init__(self, channel: Channel, queue: asyncio.Queue[ChannelFrame]) -> None:
        self._channel = channel
        self._queue = queue
        self._frames: list[ChannelFrame] = []
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._is_passing_on = False

    async def put(self, frame: ChannelFrame) -> None:
        """Enqueue a frame in order, as soon as there is room."""
        while self._bytes >= _MOST:
            self._has_room.clear()
            await self._has_room.wait()
        self.put_nowait(frame)

    def put_nowait(self, frame: ChannelFrame) -> None:
        """Enqueue a frame at once: so a channel answers the broker that closes it."""
        self._frames.append(frame)
        self._bytes += len(frame.payload)
        if not self._is_passing_on:
            self._pass_on()

    def _pass_on(self) -> None:
        """Hand all frames to the connection as one; the next ones follow once the socket has taken it."""
        self._is_passing_on = True
        frames, self._frames, self._bytes = self._frames, [], 0
        self._has_room.set()
        taken = self._channel.create_future()  # it fails once the channel has ended
        taken.add_done_callback(partial(self._passed_on, frames))
        joined = ChannelFrame(_payload(frames), any(each.should_close for each in frames), taken)
        if self._queue.full():  # the socket takes nothing at the moment
            self._channel.create_task(self._queue.put(joined))
        else:
            self._queue.put_nowait(joined)

    def _passed_on(self, frames: Sequence[ChannelFrame], taken: asyncio.Future[None]) -> None:
        for frame in frames:
            frame.drain()
        if taken.cancelled() or taken.exception():  # the channel has ended; its callers get its error
            self._frames, self._bytes = [], 0
        if self._frames:
            self._pass_on()
        else:
            self._is_passing_on = False
            self._has_room.set()


def join_writes(channel: AbstractChannel) -> Channel:
    """Let the channel join what it writes, and return it."""
    assert isinstance(channel, Channel)  # noqa: S101 -- aiormq has no other; its abstract class lacks some parameters
    queue = getattr(channel, "write_queue", None)
    if isinstance(queue, asyncio.Queue):
        joined = JoinedWrites(channel, queue)
        setattr(channel, "write_queue", joined)  # noqa: B010 -- to the type checker it is another's queue
    return channel


def _payload(frames: Sequence[ChannelFrame]) -> bytes:
    return b"".join(frame.payload for frame in frames)
