"""A refusal by the broker is one line on standard error, and exit code 3."""

from __future__ import annotations

import pytest


@pytest.mark.parametrize("arguments", [(), ("--count", "250")])
def test_message_refused_by_the_broker_ends_with_3(saga_process, rabbitmq, arguments):
    # No login may declare what begins with amq., so this is refused to all of them.
    result = saga_process(
        "trigger", "OrderCreated", *arguments, SAGA_BROKER_URL=rabbitmq.url, SAGA_EXCHANGE="amq.reserved"
    )

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker refuses us at SAGA_BROKER_URL: ChannelAccessRefused")
    assert len(result.stderr.splitlines()) == 1


def test_wrong_broker_password_ends_with_3(saga_process, rabbitmq):
    wrong = rabbitmq.url.replace("guest:guest@", "guest:wrong@")

    result = saga_process("trigger", "OrderCreated", SAGA_BROKER_URL=wrong)

    assert result.returncode == 3
    assert result.stderr.startswith("error: the broker refuses us at SAGA_BROKER_URL")
    assert len(result.stderr.splitlines()) == 1
