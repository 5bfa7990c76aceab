"""Sending messages to nobody, by the way that services publish, to see whether the broker brings them back.

A message that no queue is bound to has to return: else an event is lost where a queue is missing, and nobody learns.
"""

from __future__ import annotations

import re
from datetime import timedelta

from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import Echo, Probe
from toolkit.errors import BrokerRefusesError, UnreachableError, UnroutableError
from toolkit.ids import new_id
from toolkit.messaging.envelope import WireMessage
from toolkit.messaging.rights import PROBE_KEY
from toolkit.transport.rabbitmq.publisher import RabbitPublisher

#: However long a lease the services have: a person is waiting.
_LEASE = timedelta(seconds=5)
_TOO_LARGE = re.compile(r"message size|FRAME_TOO_LARGE|frame_too_large|larger than")


async def probes(settings: Settings) -> tuple[Probe, Probe | None]:
    """Send a small message to nobody, and, if that comes back, one as big as any that a service takes."""
    settings = settings.model_copy(update={"relay_lease": _LEASE})
    small = await _sent(settings, 2)
    return small, await _sent(settings, settings.max_message_bytes) if small.echo is Echo.RETURNED else None


async def _sent(settings: Settings, size: int) -> Probe:
    message = WireMessage(b" " * size, PROBE_KEY, message_id=new_id(), type="Probe")
    try:
        async with RabbitPublisher(settings) as publisher:
            await publisher.publish(message)
    except UnroutableError as error:
        return Probe(Echo.RETURNED, str(error))
    except (UnreachableError, BrokerRefusesError) as error:
        return Probe(_meaning(str(error)), str(error))
    return Probe(Echo.SWALLOWED, f"the broker confirmed a message to {PROBE_KEY}, which nobody listens to")


def _meaning(told: str) -> Echo:
    if "ACCESS_REFUSED" in told:
        return Echo.FORBIDDEN
    return Echo.TOO_LARGE if _TOO_LARGE.search(told) else Echo.SILENCE
