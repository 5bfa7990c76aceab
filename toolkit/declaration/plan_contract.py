"""A coordinator's plans as data: the steps that it asks for each documented example of the saga's starting event."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from toolkit.declaration.encoding import faults_of
from toolkit.declaration.events import documented_examples
from toolkit.declaration.orchestrator import Orchestrator
from toolkit.errors import describe


class PlanContract(BaseModel):
    """A coordinator's steps: groups that are asked at once, in order.

    - `coordinator`: the coordinator's own stream in the saga log.
    - `examples`: the numbers of the documented examples that lead to this plan, from 1.
    - `builds`: the steps for which it builds the event; each other one takes the success of the step before.
    - `timeouts`: by step, how many seconds its reply may take.
    - `ends`: the events that end the saga and are the coordinator's own, so that it may emit them itself.
    - `error`, `cure`: why there is no plan, and what to change; then `groups` is empty.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    coordinator: str
    groups: tuple[tuple[str, ...], ...]
    failed_end: str | None
    examples: tuple[int, ...] = ()
    builds: tuple[str, ...] = ()
    timeouts: dict[str, float] = {}
    ends: tuple[str, ...] = ()
    error: str | None = None
    cure: str = ""


def plans_of(kind: type[Orchestrator], *, service: str, timeouts: Mapping[str, timedelta]) -> tuple[PlanContract, ...]:
    """Return each plan that the examples lead to, once; `timeouts` override the declared ones."""
    plans: dict[str, PlanContract] = {}
    own = [end.__name__ for end in (kind.saga.completes_with, kind.saga.fails_with) if end.__owner__ == service]
    for number, example in enumerate(documented_examples(kind.saga.starts_with), start=1):
        plan = _plan(kind, example, timeouts, where=f"example {number}").model_copy(update={"ends": tuple(own)})
        same = plans.get(found := plan.model_dump_json())
        plans[found] = plan.model_copy(update={"examples": (*(same.examples if same else ()), number)})
    starts_with = kind.saga.starts_with.__name__
    cure = f'Document one: in {starts_with}, model_config = {{"json_schema_extra": {{"examples": [{{…}}]}}}}'
    return tuple(plans.values()) or (_without_plan(kind, f"{starts_with} has no documented example", cure),)


def _plan(
    kind: type[Orchestrator], example: Mapping[str, Any], timeouts: Mapping[str, timedelta], *, where: str
) -> PlanContract:
    starts_with = kind.saga.starts_with
    where = f"{where} of {starts_with.__name__}"
    try:
        data = starts_with.model_validate(example)
    except Exception as error:  # noqa: BLE001 -- a validator of the author's own may raise anything
        fault = faults_of(error) if isinstance(error, ValidationError) else describe(error)
        return _without_plan(kind, f"{where} is invalid: {fault}", "Correct the example")
    try:
        return _with_steps(kind, kind().groups_for(data), timeouts)
    except Exception as error:  # noqa: BLE001 -- the author's function may raise anything
        cure = f"Let it return the steps for each valid {starts_with.__name__}"
        return _without_plan(kind, f"define_steps raises on {where}: {describe(error)}", cure)


def _with_steps(
    kind: type[Orchestrator], groups: Sequence[Sequence[Any]], timeouts: Mapping[str, timedelta]
) -> PlanContract:
    planned = [step for group in groups for step in group]
    last = kind.asked_at_failure()
    steps = [*planned, *([last] if last else [])]
    waits = {step.name: timeouts.get(step.name, step.timeout) for step in planned}
    return PlanContract(
        coordinator=kind.name,
        groups=tuple(tuple(step.name for step in group) for group in groups),
        failed_end=last.name if last else None,
        builds=tuple(step.name for step in steps if step.action),
        timeouts={name: wait.total_seconds() for name, wait in waits.items() if wait},
    )


def _without_plan(kind: type[Orchestrator], error: str, cure: str) -> PlanContract:
    last = kind.asked_at_failure()
    failed_end = last.name if last else None
    return PlanContract(coordinator=kind.name, groups=(), failed_end=failed_end, error=error, cure=cure)
