"""The events of one saga that a scenario plays: a sample of each type."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from toolkit.declaration.events import AbortRequested, Answer, Event, Saga
from toolkit.declaration.participant import Participant
from toolkit.declaration.service import Service
from toolkit.errors import ScenarioError
from toolkit.testing.samples import sample

#: Ids of a played saga; the first one that the starting event takes.
_IDS = ("scenario-1", "1", "0190a1b2-c3d4-7e5f-8a6b-9c0d1e2f3a4b")


class SagaEvents:
    """Samples of the events that a saga's participants emit, and that people send; `samples` are used as they are.

    - `start`: the event that starts the saga, with the saga's id.

    Raises:
        ValueError: no sample of an event can be made.
    """

    def __init__(self, saga: Saga, services: Sequence[Service], samples: Iterable[Event]) -> None:
        self._saga = saga
        self._given = {type(each): each for each in samples}
        self.start = self._started()
        self.saga_id = str(getattr(self.start, saga.id_field))
        own = [each for service in services for each in service.participants if each.saga.name == saga.name]
        self._samples = self._given | {each: self._built(each) for each in _types(own)}
        consumed = (each for participant in own for each in participant.consumed())
        known: list[type[Event]] = [saga.starts_with, AbortRequested, *self._samples, *consumed]
        self._names = {each.__name__ for each in known}

    @property
    def answers(self) -> list[str]:
        """The names of the answers that people give."""
        return sorted(each.__name__ for each in self._samples if issubclass(each, Answer))

    def of(self, event_type: type[Event]) -> Event:
        """Return the sample of an event."""
        return self._samples[event_type]

    def answer(self, name: str) -> Event:
        """Return the sample of an answer.

        Raises:
            ScenarioError: no step of the saga waits for such an answer.
        """
        for event_type, built in self._samples.items():
            if event_type.__name__ == name and issubclass(event_type, Answer):
                return built
        declared = f"give one of {', '.join(self.answers)}" if self.answers else "it declares none"
        raise ScenarioError(f"saga {self._saga.name} has no answer {name}: {declared}")

    def check(self, name: str) -> None:
        """Let no unknown event pass.

        Raises:
            ScenarioError: no participant of the saga emits or consumes such an event.
        """
        if name not in self._names:
            declared = ", ".join(sorted(self._names))
            raise ScenarioError(f"saga {self._saga.name} has no event {name}: deliver one of {declared}")

    def _started(self) -> Event:
        start = self._saga.starts_with
        if start in self._given:
            return self._given[start]
        for saga_id in _IDS:
            own: dict[str, Any] = {self._saga.id_field: saga_id}
            try:
                return sample(start, **own)
            except ValueError as error:
                fault = error
        raise fault

    def _built(self, event_type: type[Event]) -> Event:
        facts = {self._saga.id_field: self.saga_id, "reason": "the scenario says so"}
        known = {name: fact for name, fact in facts.items() if name in event_type.model_fields}
        if event_type in self._given:
            return self._given[event_type].model_copy(update=known)
        return sample(event_type, like=self.start, **known)


def _types(participants: Iterable[Participant]) -> Iterator[type[Event]]:
    """Yield the events that may be emitted, or sent by people."""
    for participant in participants:
        yield from participant.emitted()
        yield from (each for each in participant.consumed() if issubclass(each, Answer))
