"""The events that a join runs on: those that its log has gathered, and the one that fills its last slot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from toolkit.declaration.encoding import read_gathered
from toolkit.declaration.events import Answer, Event
from toolkit.declaration.participant import Compensation, Step
from toolkit.declaration.text_redaction import redact
from toolkit.messaging.envelope import Message
from toolkit.protocol.joins import Gate, GatheredEvent


def gate_of(handler: Step | Compensation) -> Gate:
    """Return the gate of a step or a compensation."""
    return Gate({name: [event.__name__ for event in events] for name, events in handler.slots.items()})


def is_question_open(step: Step, gathered: Iterable[GatheredEvent]) -> bool:
    """Whether a step that has gathered these events waits for nothing but answers."""
    answers = [event.__name__ for event in step.triggers if issubclass(event, Answer)]
    return step.asks and gate_of(step).lacks_only(answers, (event.event_type for event in gathered))


@dataclass(frozen=True, slots=True)
class Joined:
    """What a join has gathered when it runs.

    - `deadline`: until when a step waited, counted from its first event.
    - `built`: the events of a compensation that voids a call: it runs on none that arrived.
    """

    handler: Step | Compensation
    gathered: tuple[GatheredEvent, ...]
    deadline: datetime | None = None
    built: Mapping[str, Event] | None = None

    @classmethod
    def for_void(cls, compensation: Compensation, saga_id: str, reason: str) -> Joined:
        """Return events for a compensation that runs although none of its events has arrived."""
        build = compensation.of.saga.build
        built = {name: build(events[0], saga_id=saga_id, reason=reason) for name, events in compensation.slots.items()}
        return cls(compensation, (), built=built)

    def is_filled_by(self, message: Message) -> bool:
        """Whether the message fills the last slot of a step; the log does not keep it yet."""
        if not isinstance(self.handler, Step) or type(message.event) not in self.handler.triggers:
            return False
        return all(event.event_id != message.envelope.event_id for event in self.gathered)

    def arguments(self, message: Message) -> Mapping[str, Event]:
        """Return the event for each event parameter; `message` is the one that runs the function.

        Raises:
            StepError: this release declares another version of an event than the log holds.
            ValidationError: the body of an event is not one of its class.
        """
        if self.built is not None:
            return self.built
        kinds = {event.__name__: event for event in self.handler.triggers}
        filled = gate_of(self.handler).filled(self.gathered)
        arguments = {
            slot: read_gathered(event, self.handler.name, kinds[event.event_type])
            for slot, event in filled.items()
            if event.event_id != message.envelope.event_id
        }
        last = next((name for name, events in self.handler.slots.items() if type(message.event) in events), None)
        return {last: message.event} | arguments if last else arguments

    def redacted(self, text: str) -> str:
        """Return a text without the sensitive values of the gathered events."""
        kinds = {event.__name__: event for event in self.handler.triggers}
        for event in self.gathered:
            text = redact(kinds.get(event.event_type), event.body, text)
        return text
