"""Decides which messages need their saga's log before they are dispatched, and which take its streams as empty."""

from __future__ import annotations

from collections.abc import Collection

from toolkit.clock import Clock
from toolkit.configuration.settings import SHORTEST_RETENTION
from toolkit.declaration.events import Event
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.service import Service
from toolkit.messaging.decoding import Unreadable
from toolkit.messaging.envelope import Message
from toolkit.protocol.commands import Verb


class LogReads:
    """The need of one service's messages for the saga log.

    - `former_steps` stand in the log by saga type and name, though this release does not declare them.
    - `reads_first`: each message needs the log.
    """

    def __init__(
        self, service: Service, *, former_steps: Collection[tuple[str, str]], clock: Clock, reads_first: bool
    ) -> None:
        self._forward_only = frozenset() if reads_first else _forward_only_events(service, former_steps)
        self._clock = clock

    def are_needed_for(self, item: Message | Unreadable) -> bool:
        """Whether the message's saga has to be read from the log before the message can be dispatched.

        An event that only runs steps, for the first time, needs no reading: its steps' streams are taken as empty, and
        the fence's key refuses the entry where one is not.
        """
        if isinstance(item, Unreadable) or not item.envelope.saga_id:
            return False
        envelope = item.envelope
        return not (
            type(item.event) in self._forward_only
            and envelope.attempt == 1
            and not envelope.deferred_until
            and not envelope.nudge
            and (envelope.address is None or envelope.address.verb is Verb.ASK)
            and envelope.occurred_at > self._clock.now() - SHORTEST_RETENTION
        )


def _forward_only_events(service: Service, former_steps: Collection[tuple[str, str]]) -> frozenset[type[Event]]:
    """Return the events that only run steps in sagas whose steps had no other names before.

    None of these steps is external, and none is a join: the log shows which of its slots are filled. What a coordinator
    receives needs its log, too: there its plan stands.
    """
    renamed = {saga_type for saga_type, _ in former_steps}
    plain = {
        step for step in service.steps if not (step.external or step.signature.is_join or step.saga.name in renamed)
    }
    coordinated = {event for each in service.orchestrators for event in each.events}
    others: list[Step | Compensation] = [*service.compensations, *(step for step in service.steps if step not in plain)]
    return frozenset(
        {trigger for step in plain for trigger in step.triggers}
        - {trigger for handler in others for trigger in handler.triggers}
        - coordinated
    )
