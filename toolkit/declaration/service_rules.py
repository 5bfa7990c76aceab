"""The rules for a service's participants, tables, sagas, coordinators and resources."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

from sqlalchemy import MetaData

from toolkit.declaration.events import Saga
from toolkit.declaration.orchestrator import Orchestrator
from toolkit.declaration.participant import Compensation, Participant, Step
from toolkit.declaration.signature import is_coroutine_function
from toolkit.errors import DeclarationError


def check_kinds(name: str, participants: object, tables: object) -> None:
    """Check that the participants are a sequence of them, and the tables a MetaData."""
    where, given = f"Service {name!r}", participants
    if isinstance(given, Participant):
        cure = f"Pass a list: participants=[{given.name}]"
        raise DeclarationError(where, "its participants are no list", cure)
    each: object  # whatever was passed
    for each in given if isinstance(given, Sequence) and not isinstance(given, str) else [given]:
        if not isinstance(each, Participant):
            cure = 'Pass a list: participants=[Participant("payment", saga=...)]'
            raise DeclarationError(where, f"its participants hold {each!r}, which is no Participant", cure)
    if tables is not None and not isinstance(tables, MetaData):
        shown = getattr(tables, "__name__", repr(tables))
        cure = "Pass the MetaData of the tables, as in tables=Base.metadata"
        raise DeclarationError(where, f"its tables are {shown}, which is no MetaData", cure)


def check_starts(name: str, starts: object) -> None:
    """Check that what the application starts is a sequence of sagas."""
    if not isinstance(starts, Sequence) or not all(isinstance(each, Saga) for each in starts):
        cure = "Pass a list of sagas: starts=[order_saga]"
        raise DeclarationError(f"Service {name!r}", f"it starts {starts!r}, which is no list of sagas", cure)


def check_streams(name: str, steps: Sequence[Step], compensations: Sequence[Compensation]) -> None:
    """Check that each stream of the log has a name of its own: each step's, and each joining compensation's."""
    of_steps = [step.name for step in steps]
    names = [*of_steps, *(each.name for each in compensations if each.signature.is_join)]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        kinds = "two steps" if of_steps.count(doubled[0]) > 1 else "a compensation that joins, and another function,"
        cure = "Rename one: the name is the fence's key"
        raise DeclarationError(f"Service {name!r}", f"{kinds} are named {doubled[0]}", cure)


def check_sagas(name: str, participants: Sequence[Participant]) -> None:
    """Check that each saga's name, and each starting event, identifies one saga."""
    sagas = {id(participant.saga): participant.saga for participant in participants}.values()
    for one, other in combinations(sagas, 2):
        if one.name == other.name and one != other:
            raise DeclarationError(
                f"Service {name!r}",
                f"two sagas are named {one.name}",
                "Rename one, or share one declaration: a saga's identity is its type and its id",
            )
        if one.starts_with is other.starts_with and one != other:
            raise DeclarationError(
                f"Service {name!r}",
                f"{one.starts_with.__name__} starts two sagas, {one.name} and {other.name}",
                "Give each a starting event of its own: the event decides which saga a message starts",
            )


def check_orchestrators(
    name: str, orchestrators: Sequence[type[Orchestrator]], participants: Sequence[Participant]
) -> None:
    """Check that each coordinated saga has one coordinator here, and no step: both would write the same streams."""
    taken = [participant.saga.name for participant in participants]
    for each in orchestrators:
        if each.saga.name in taken:
            fault = f"{each.__name__} coordinates the saga {each.saga.name}, in which the service takes part already"
            cure = "Run the coordinator in a service of its own: its log has a stream for each step"
            raise DeclarationError(f"Service {name!r}", fault, cure)
        if each.asked_at_failure() is None and each.saga.fails_with.__owner__ != name:
            end = each.saga.fails_with
            fault = f"{each.__name__} has no failed_end, and {end.__name__} is {end.__owner__}'s to emit"
            cure = f"Name the step of {end.__owner__} that emits it: `failed_end = SagaStep(...)`"
            raise DeclarationError(f"Service {name!r}", fault, cure)
        taken.append(each.saga.name)


def check_seed(name: str, seed: object) -> None:
    """Check that the seed can be awaited."""
    if seed is not None and not is_coroutine_function(seed):
        raise DeclarationError(
            f"Service {name!r}",
            f"its seed {getattr(seed, '__name__', seed)!r} is not a coroutine function",
            "Declare it as `async def seed(session: AsyncSession) -> None`",
        )


def check_resources(service: str, handlers: Iterable[Step | Compensation], provides: Mapping[type, Any]) -> None:
    """Check that the service provides each resource that a step or a compensation takes."""
    for handler in handlers:
        for name, wanted in handler.signature.resources.items():
            if wanted not in provides:
                raise DeclarationError(
                    f"{handler.function.__module__}.{handler.name}",
                    f"the parameter {name!r} takes a {wanted.__name__}, which {service} does not provide",
                    f"Add it: Service(provides={{{wanted.__name__}: how_to_open_one}})",
                )
