"""Contracts inferred from log entries, for services whose own contracts are not known.

A log shows the steps that a service has moved, and on which events; it does not show what the service would do next.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from toolkit.declaration.choreography import Choreography
from toolkit.declaration.contract import Contract, HandlerContract, SagaContract
from toolkit.protocol.fence import StepState
from toolkit.protocol.log_entry import LogEntry
from toolkit.protocol.timeline import Timeline


def completed(choreography: Choreography, timeline: Timeline) -> Choreography:
    """Add the timeline's steps that the choreography does not name; all of them are of one saga type."""
    known = {(node.service, name, node.saga.name) for node in choreography.nodes for name in (node.step, node.name)}
    unknown: dict[str, list[LogEntry]] = {}
    for entry in timeline.entries:
        if (entry.service, entry.step, entry.saga_type) not in known:
            unknown.setdefault(entry.service, []).append(entry)
    if not unknown and timeline.saga_type and choreography.saga(timeline.saga_type):
        return choreography
    saga = choreography.saga(str(timeline.saga_type)) or SagaContract(
        name=str(timeline.saga_type), id_field="", starts_with="", completes_with="", fails_with=""
    )
    return Choreography([*choreography.contracts, *(_inferred(name, saga, log) for name, log in unknown.items())])


def _inferred(service: str, saga: SagaContract, log: Sequence[LogEntry]) -> Contract:
    steps: dict[str, list[LogEntry]] = {}
    for entry in log:
        steps.setdefault(entry.step, []).append(entry)
    handlers = tuple(each for step, entries in steps.items() for each in _handlers(step, saga.name, entries))
    return Contract(service=service, toolkit_version="", sagas=(saga,), handlers=handlers, events={})


def _handlers(step: str, saga: str, entries: Sequence[LogEntry]) -> Iterator[HandlerContract]:
    back = [each for each in entries if each.to_state in (StepState.COMPENSATING, StepState.COMPENSATED)]
    forth = [each for each in entries if each not in back and each.event_type]
    yield _handler(step, None, saga, forth, StepState.COMPLETED)
    if back:
        yield _handler(f"{step} (undone)", step, saga, back, StepState.COMPENSATED)


def _handler(name: str, of: str | None, saga: str, entries: Sequence[LogEntry], done: StepState) -> HandlerContract:
    emitted = [str(each.emitted_type) for each in entries if each.emitted_type and each.to_state == done]
    refused = [str(each.emitted_type) for each in entries if each.to_state == StepState.FAILED]
    return HandlerContract(
        name=name,
        kind="compensation" if of else "step",
        of=of,
        saga=saga,
        triggers=tuple(dict.fromkeys(str(each.event_type) for each in entries)),
        success=next(iter(emitted), ""),
        refusals=tuple(dict.fromkeys(refused)),
        timeout=None,
        attempts=0,
        external=False,
        description="",
    )
