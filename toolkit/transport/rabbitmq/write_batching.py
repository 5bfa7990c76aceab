"""One write to the socket for all the frames that a channel is given in one turn of the event loop.

aiormq writes frame by frame, and a system call costs more than all else of a publish. It has no public way to do
better: this stands before a channel's `write_queue`, which is the one thing of its inside that is touched. Without it
all goes on as before, frame by frame.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from aiormq.abc import AbstractChannel, ChannelFrame
from aiormq.channel import Channel

#: So many frames wait at most for a connection that takes none; who has more waits with them.
_MOST = 1_000


class JoinedWrites:
    """Takes the place of a channel's queue of frames to be written; the frames of one turn go on as one.

    The next ones follow when the socket has taken these: a broker that reads nothing does not fill our memory.
    """

    def __init__(self, channel: Channel, queue: asyncio.Queue[ChannelFrame]) -> None:
        self._channel = channel
        self._queue = queue
        self._frames: list[ChannelFrame] = []
        self._has_room = asyncio.Event()
        self._passing_on: asyncio.Task[None] | None = None

    async def put(self, frame: ChannelFrame) -> None:
        """Take a frame, as soon as there is room; it is passed on in its place behind those before it."""
        while len(self._frames) >= _MOST:
            self._has_room.clear()
            await self._has_room.wait()
        self.put_nowait(frame)

    def put_nowait(self, frame: ChannelFrame) -> None:
        """Take a frame at once: so a channel answers the broker that closes it."""
        self._frames.append(frame)
        if self._passing_on is None:
            self._passing_on = asyncio.create_task(self._pass_on())

    async def _pass_on(self) -> None:
        try:
            while self._frames:
                frames, self._frames = self._frames, []
                self._has_room.set()
                taken = self._channel.create_future()
                await self._queue.put(_joined(frames, taken))
                await taken
        except Exception:  # noqa: BLE001, S110 -- the channel has ended; who waits for its answers learns it from them
            pass
        finally:
            self._passing_on = None
            self._has_room.set()


def join_writes(channel: AbstractChannel) -> Channel:
    """Return the channel, which from now on joins what it writes."""
    assert isinstance(channel, Channel)  # noqa: S101 -- aiormq has no other; its abstract class lacks some parameters
    queue = getattr(channel, "write_queue", None)
    if isinstance(queue, asyncio.Queue):
        joined = JoinedWrites(channel, queue)
        setattr(channel, "write_queue", joined)  # noqa: B010 -- to the type checker it is another's queue
    return channel


def _joined(frames: Sequence[ChannelFrame], taken: asyncio.Future[None]) -> ChannelFrame:
    """Return these frames as one, which says by `taken` that the socket has taken it, and says so of each."""
    taken.add_done_callback(lambda _: _all_drained(frames))
    return ChannelFrame(
        payload=b"".join(frame.payload for frame in frames),
        should_close=any(frame.should_close for frame in frames),
        drain_future=taken,
    )


def _all_drained(frames: Sequence[ChannelFrame]) -> None:
    for frame in frames:
        frame.drain()
