"""Frames that are cut out of one read are the library's own, whatever the reads are."""

from __future__ import annotations

import asyncio
import struct
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pamqp.frame
import pytest
from aiormq.exceptions import AMQPConnectionError, InvalidFrameError, ProtocolSyntaxError
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.body import ContentBody
from pamqp.commands import Basic
from pamqp.header import ContentHeader
from pamqp.heartbeat import Heartbeat

from toolkit.transport.rabbitmq.frame_reading import FrameReader
from toolkit.transport.rabbitmq.own_connections import connecting
from toolkit.transport.rabbitmq.tolerant_properties import tolerate_malformed_properties

SHORT = st.text(max_size=60).filter(lambda text: len(text.encode()) < 256)
HEADER = st.one_of(
    SHORT, st.booleans(), st.integers(-(2**63), 2**63 - 1), st.none(), st.floats(width=32, allow_nan=False),
    st.binary(max_size=9).map(bytearray),
    st.just(Decimal("1.5")), st.just(datetime(2026, 1, 1, tzinfo=UTC)), st.lists(st.integers(0, 9), max_size=3),
    st.dictionaries(SHORT, st.integers(0, 9), max_size=2),
)  # fmt: skip
PROPERTIES = st.builds(
    Basic.Properties,
    content_type=st.none() | SHORT,
    content_encoding=st.none() | SHORT,
    headers=st.none() | st.dictionaries(SHORT, HEADER, max_size=6),
    delivery_mode=st.sampled_from([None, 1, 2]),
    priority=st.none() | st.integers(0, 255),
    correlation_id=st.none() | SHORT,
    reply_to=st.none() | SHORT,
    expiration=st.none() | SHORT,
    message_id=st.none() | SHORT,
    timestamp=st.none() | st.integers(0, 2**33).map(lambda at: datetime.fromtimestamp(at, UTC)),
    message_type=st.none() | SHORT,
    user_id=st.none() | SHORT,
    app_id=st.none() | SHORT,
)
FRAME = st.one_of(
    st.builds(ContentHeader, st.just(0), st.integers(0, 2**40), PROPERTIES),
    st.builds(ContentBody, st.binary(min_size=1, max_size=300)),
    st.builds(Basic.Deliver, SHORT, st.integers(1, 2**60), st.booleans(), st.just("an.exchange"), SHORT),
    st.builds(Basic.Ack, st.integers(0, 2**60), st.booleans()),
    st.builds(Basic.ConsumeOk, SHORT),
    st.just(commands.Channel.Close(404, "NOT_FOUND", 60, 40)),
    st.just(Heartbeat()),
)


async def frames_of(*reads: bytes) -> list[Any]:
    """Return what a reader makes of these reads, and the error at its end."""
    stream = asyncio.StreamReader()
    reader, found = FrameReader(stream), []

    async def read() -> None:
        try:
            async for frame in reader:
                found.append(frame)
        except Exception as error:  # noqa: BLE001 -- the tests look at it
            found.append(error)

    reading = asyncio.create_task(read())
    for each in reads:
        stream.feed_data(each)
        await asyncio.sleep(0)
    stream.feed_eof()
    await reading
    return found


def plain(frame: Any) -> Any:
    """Return a frame as something that can be compared."""
    if isinstance(frame, ContentHeader):
        return frame.class_id, frame.weight, frame.body_size, dict(frame.properties)
    if isinstance(frame, ContentBody | Heartbeat):
        return type(frame), getattr(frame, "value", None)
    return type(frame), dict(frame)


@given(frames=st.lists(FRAME, min_size=1, max_size=5), size=st.integers(1, 400))
def test_frames_are_read_as_the_library_does(frames: list[Any], size: int) -> None:
    written = [pamqp.frame.marshal(each, 7) for each in frames]
    stream = b"".join(written)

    *read, end = asyncio.run(frames_of(*(stream[at : at + size] for at in range(0, len(stream), size))))

    assert isinstance(end, AMQPConnectionError)
    assert [(size, channel) for size, channel, _ in read] == [pamqp.frame.unmarshal(each)[:2] for each in written]
    assert [plain(frame) for *_, frame in read] == [plain(pamqp.frame.unmarshal(each)[2]) for each in written]


@pytest.mark.parametrize(
    ("stream", "error"),
    [
        (b"AMQP\x00\x00\x09\x01", ProtocolSyntaxError),
        (b"\x00hello, this is no broker", InvalidFrameError),
        (pamqp.frame.marshal(ContentBody(b"x"), 1)[:-1] + b"\x00", InvalidFrameError),
        (struct.pack(">BHI4sB", 1, 1, 4, b"\xff\xff\xff\xff", 0xCE), InvalidFrameError),
        (struct.pack(">BHI", 3, 1, 9) + b"cut", AMQPConnectionError),
    ],
    ids=["another protocol", "no broker", "no end", "an unknown method", "a lost connection"],
)
async def test_malformed_frames_end_the_connection(stream: bytes, error: type[Exception]) -> None:
    assert [type(each) for each in await frames_of(stream)] == [error]


async def test_an_end_between_frames_ends_the_reading() -> None:
    stream = asyncio.StreamReader()
    stream.feed_data(pamqp.frame.marshal(Heartbeat(), 0))
    stream.feed_eof()

    read = [frame async for *_, frame in FrameReader(stream)]

    assert [type(each) for each in read] == [Heartbeat]


async def test_properties_that_cannot_be_decoded_are_tolerated() -> None:
    tolerate_malformed_properties()
    content = struct.pack(">HHQH", 60, 0, 3, 1 << 13 | 1 << 6) + struct.pack(">I", 3) + b"\x01\xff?" + b"\xff" * 8
    broken = struct.pack(">BHI", 2, 1, len(content)) + content + b"\xce"

    with connecting():
        (_, _, header), _ = await frames_of(broken)
    (error,) = await frames_of(broken)  # on a connection of the application

    assert header.properties.headers == {"x-undecodable": True}
    assert header.properties.timestamp == datetime(1, 1, 1, tzinfo=UTC)
    assert isinstance(error, InvalidFrameError)
