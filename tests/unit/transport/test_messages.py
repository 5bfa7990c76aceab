"""What a client writes into the headers of the service's own messages is not believed."""

from __future__ import annotations

import pytest
from pamqp.commands import Basic

from toolkit.messaging.envelope import ANSWERED_BY, CAME_BY, REMINDER, TIMER
from toolkit.transport.rabbitmq.messages import wire_of

OWN_HEADERS = (TIMER, REMINDER, ANSWERED_BY)


def received(exchange: str) -> dict[str, object]:
    """Return the headers of a message that came through this exchange with all headers of the service's own."""
    properties = Basic.Properties(headers=dict.fromkeys((*OWN_HEADERS, CAME_BY), "x"), user_id="guest")
    wire = wire_of(b"{}", "kitchen.TeaMade", properties, exchange=exchange, own="saga.kitchen", shared="saga")
    return dict(wire.headers)


@pytest.mark.parametrize("exchange", ["saga", "", "elsewhere"])
def test_other_exchanges_bring_no_own_headers(exchange: str) -> None:
    headers = received(exchange)

    assert not set(OWN_HEADERS) & set(headers)
    assert headers.get(CAME_BY) != "x"


def test_own_messages_keep_their_headers() -> None:
    assert set(OWN_HEADERS) | {CAME_BY} == set(received("saga.kitchen"))
