"""A message as any AMQP client may send it, with a routing key and a body."""

from __future__ import annotations

from typing import Any

from tests.example_sagas.loans import NOON
from toolkit.messaging.envelope import WireMessage
from toolkit.testing import ManualClock

WATCH = ManualClock(NOON)


def plain(body: bytes = b'{"loan_id": "loan-1"}', key: str = "reader.BookWanted", **facts: Any) -> WireMessage:
    return WireMessage(body, key, **facts)
