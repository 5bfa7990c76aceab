"""Publish messages that no queue is bound to, as services publish, and see whether the broker returns them.

An unroutable message has to return: else an event without a queue is lost, and its publisher counts it as sent.
"""

from __future__ import annotations

import re
from datetime import timedelta

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import ProbeMessage, ProbeOutcome
from toolkit.errors import BrokerRefusesError, UnreachableError, UnroutableError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.messaging.rights import PROBE_KEY
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: Shorter than the services' lease: a person waits for the answer.
_LEASE = timedelta(seconds=5)
_TOO_LARGE = re.compile(r"message size|FRAME_TOO_LARGE|frame_too_large|larger than")


async def publish_probes(settings: Settings) -> tuple[ProbeMessage, ProbeMessage | None]:
    """Publish a small message, and, if it returns, one of the largest size that a service accepts."""
    settings = settings.model_copy(update={"relay_lease": _LEASE})
    small = await _published(settings, 2)
    is_returned = small.outcome is ProbeOutcome.RETURNED
    return small, await _published(settings, settings.max_message_bytes) if is_returned else None


async def _published(settings: Settings, size: int) -> ProbeMessage:
    message = WireMessage(b" " * size, PROBE_KEY, message_id=new_id(), type="Probe")
    try:
        async with RabbitPublisher(settings) as publisher:
            await publisher.publish(message)
    except UnroutableError as error:
        return ProbeMessage(ProbeOutcome.RETURNED, str(error))
    except (UnreachableError, BrokerRefusesError) as error:
        return ProbeMessage(_outcome(str(error)), str(error))
    return ProbeMessage(
        ProbeOutcome.CONFIRMED, f"the broker confirmed a message to {PROBE_KEY}, a key without a consumer"
    )


def _outcome(error: str) -> ProbeOutcome:
    if "ACCESS_REFUSED" in error:
        return ProbeOutcome.FORBIDDEN
    return ProbeOutcome.TOO_LARGE if _TOO_LARGE.search(error) else ProbeOutcome.UNANSWERED
