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


class JoinedWrites:
    """Takes the place of a channel's queue of frames to be written; the frames of one turn go on as one."""

    def __init__(self, queue: asyncio.Queue[ChannelFrame]) -> None:
        self._queue = queue
        self._frames: list[ChannelFrame] = []
        self._passing_on: asyncio.Task[None] | None = None

    async def put(self, frame: ChannelFrame) -> None:
        """Take a frame; it is passed on in the loop's next turn, in its place behind those before it."""
        self.put_nowait(frame)

    def put_nowait(self, frame: ChannelFrame) -> None:
        """Take a frame as `put` does: so a channel answers the broker that closes it."""
        self._frames.append(frame)
        if self._passing_on is None:
            self._passing_on = asyncio.create_task(self._pass_on())

    async def _pass_on(self) -> None:
        try:
            while self._frames:
                frames, self._frames = self._frames, []
                await self._queue.put(_joined(frames))  # a connection that takes no more makes all of them wait
        finally:
            self._passing_on = None


def join_writes(channel: AbstractChannel) -> Channel:
    """Return the channel, which from now on joins what it writes."""
    assert isinstance(channel, Channel)  # noqa: S101 -- aiormq has no other; its abstract class lacks some parameters
    queue = getattr(channel, "write_queue", None)
    if isinstance(queue, asyncio.Queue):
        setattr(channel, "write_queue", JoinedWrites(queue))  # noqa: B010 -- to the type checker it is another's queue
    return channel


def _joined(frames: Sequence[ChannelFrame]) -> ChannelFrame:
    if len(frames) == 1:
        return frames[0]
    drained = None
    if any(frame.should_drain for frame in frames):
        drained = asyncio.get_running_loop().create_future()
        drained.add_done_callback(lambda _: _all_drained(frames))
    return ChannelFrame(
        payload=b"".join(frame.payload for frame in frames),
        should_close=any(frame.should_close for frame in frames),
        drain_future=drained,
    )


def _all_drained(frames: Sequence[ChannelFrame]) -> None:
    for frame in frames:
        frame.drain()
