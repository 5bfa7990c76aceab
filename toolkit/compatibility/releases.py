"""One saga in two releases: its graphs, and how each service of one release reads what the other one emits."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum

from toolkit.checker.graph import GraphStep, SagaGraph, Slot, graph_of
from toolkit.compatibility.readings import Fault, faults_of, is_same_form
from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract, EventContract, HandlerContract, SagaContract


class Which(StrEnum):
    """The two releases."""

    OLD = "old"
    NEW = "new"


class Release:
    """One saga in one release."""

    def __init__(self, choreography: Choreography, saga: SagaContract) -> None:
        self.choreography = choreography
        self.saga = saga
        self.graph: SagaGraph = graph_of(choreography, saga)
        self.contracts: dict[str, Contract] = {each.service: each for each in choreography.contracts}
        self.steps: dict[str, GraphStep] = {step.place: step for step in self.graph.steps}
        self.outside = (saga.starts_with, *self.graph.people)

    def slots(self, place: str, *, undoing: bool) -> tuple[Slot, ...]:
        """Return the slots of a step, or of its compensation; none where the release does not have it."""
        step = self.steps.get(place)
        if step is None:
            return ()
        return (step.undoing.slots if step.undoing else ()) if undoing else step.slots

    def handler(self, service: str, name: str) -> HandlerContract | None:
        """Return a step or a compensation of the saga by its service and its name."""
        handlers = self.contracts[service].handlers if service in self.contracts else ()
        return next((each for each in handlers if (each.name, each.saga) == (name, self.saga.name)), None)

    def emitters(self, event: str) -> list[str]:
        """Return the services whose steps or compensations emit an event."""
        return list(dict.fromkeys(step.service for step in self.graph.steps if event in step.emits))

    def senders(self, event: str) -> list[str]:
        """Return the services that emit an event, or start the saga by it."""
        starting = [each.service for each in self.contracts.values() if event in each.starts]
        return list(dict.fromkeys((*self.emitters(event), *starting)))

    def event(self, event: str, service: str | None = None) -> EventContract | None:
        """Return an event as a service declares it, else as its owner does."""
        contract = self.contracts.get(service or "")
        return (contract.events.get(event) if contract else None) or self.choreography.event(event)


@dataclass
class Change:
    """One saga in an old and in a new release."""

    old: Release
    new: Release
    _read: dict[tuple[str, Which, str, Which], tuple[Fault, ...]] = field(default_factory=dict)

    def release(self, which: Which) -> Release:
        """Return one of the two."""
        return self.old if which is Which.OLD else self.new

    def sent(self, event: str, which: Which) -> EventContract | None:
        """Return an event as one release sends it: as its emitter declares it, or as its consumers do for clients."""
        release = self.release(which)
        return release.event(event, next(iter(release.senders(event)), None))

    def is_one_form(self, event: str) -> bool:
        """Whether both releases send the same messages under this name."""
        one, other = self.sent(event, Which.OLD), self.sent(event, Which.NEW)
        return one is not None and other is not None and is_same_form(one, other)

    def faults(self, event: str, sent: Which, service: str, taken: Which) -> tuple[Fault, ...]:
        """Return why a service of one release does not read an event as another one sends it.

        What the old release did not read of its own messages either is no fault of the change.
        """
        key = event, sent, service, taken
        if key not in self._read:
            written = self.sent(event, sent)
            reader = self.release(taken).contracts.get(service)
            read = reader.events.get(event) if reader else None
            is_complete = event not in self.release(sent).outside
            found = faults_of(written, read, is_complete=is_complete) if written and read else ()
            is_before = sent is taken is Which.OLD
            known = () if is_before or not found else self.faults(event, Which.OLD, service, Which.OLD)
            self._read[key] = tuple(each for each in found if each not in known)
        return self._read[key]

    def original_faults(self, step: GraphStep) -> tuple[Fault, ...]:
        """Return why the new compensation of a step can't read what the old release has emitted."""
        new = self.new.steps.get(step.place)
        undoing = new.undoing if new else None
        handler = self.new.handler(step.service, undoing.name) if undoing else None
        if new is None or handler is None or handler.original is False:
            return ()
        if new.success != step.success:
            text = f"the step emitted {step.success}, and emits {new.success} now"
            return (Fault("original changed", "", text, is_certain=True),)
        return self.faults(step.success, Which.OLD, step.service, Which.NEW)

    @property
    def changed_services(self) -> list[str]:
        """The services whose contracts differ, or that only one release has."""
        services = dict.fromkeys((*self.old.contracts, *self.new.contracts))
        old, new = self.old.contracts, self.new.contracts
        return [each for each in services if _without_release(old.get(each)) != _without_release(new.get(each))]

    def places(self) -> list[str]:
        """Return the places of all steps, those of the old release first."""
        return list(dict.fromkeys((*self.old.steps, *self.new.steps)))


def _without_release(contract: Contract | None) -> Contract | None:
    return contract and contract.model_copy(update={"toolkit_version": ""})


def release_of(contracts: Iterable[Contract], saga: str) -> Release | None:
    """Return a saga's release, or None where no service takes part in it."""
    choreography = Choreography(contracts)
    found = choreography.saga(saga)
    return Release(choreography, found) if found and choreography.nodes_of(found) else None
