"""One write to the socket for all the frames that a channel receives in one turn of the event loop.

aiormq writes frame by frame, and a system call costs more than all else of a publish. It has no public way to batch:
this wraps a channel's `write_queue`, the one private attribute that is touched. On a channel without it frames are
written one by one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.channel import Channel

#: So many bytes wait for a connection that takes none; the caller of the next frame waits, too.
_MOST = 1024 * 1024


class JoinedWrites:
    """Replaces a channel's queue of outgoing frames; the frames of one turn are written as one.

    The next ones follow once the socket has taken these: a broker that reads nothing does not fill this process's
    memory.
    """

    def __init__(self, channel: Channel, queue: asyncio.Queue[ChannelFrame]) -> None:
        self._channel = channel
        self._queue = queue
        self._frames: list[ChannelFrame] = []
        self._bytes = 0
        self._has_room = asyncio.Event()
        self._passing_on: asyncio.Task[None] | None = None

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
        if self._passing_on is None:
            self._passing_on = asyncio.create_task(self._pass_on())

    async def _pass_on(self) -> None:
        try:
            while self._frames:
                frames, self._frames, self._bytes = self._frames, [], 0
                self._has_room.set()
                taken = self._channel.create_future()
                await self._queue.put(_joined(frames, taken))
                await taken
        except Exception:  # noqa: BLE001 -- the channel has ended; its callers get its error
            self._frames, self._bytes = [], 0
        finally:
            self._passing_on = None
            self._has_room.set()


def join_writes(channel: AbstractChannel) -> Channel:
    """Let the channel join what it writes, and return it."""
    assert isinstance(channel, Channel)  # noqa: S101 -- aiormq has no other; its abstract class lacks some parameters
    queue = getattr(channel, "write_queue", None)
    if isinstance(queue, asyncio.Queue):
        joined = JoinedWrites(channel, queue)
        setattr(channel, "write_queue", joined)  # noqa: B010 -- to the type checker it is another's queue
    return channel


def _joined(frames: Sequence[ChannelFrame], taken: asyncio.Future[None]) -> ChannelFrame:
    """Return these frames as one; `taken` resolves when the socket has taken it, and marks each frame as drained."""
    taken.add_done_callback(lambda _: _all_drained(frames))
    return ChannelFrame(
        payload=b"".join(frame.payload for frame in frames),
        should_close=any(frame.should_close for frame in frames),
        drain_future=taken,
    )


def _all_drained(frames: Sequence[ChannelFrame]) -> None:
    for frame in frames:
        frame.drain()
