"""A service holds participants, and provides the resources of their steps."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
from sqlalchemy import MetaData
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.loans import (
    BookLent,
    BookTakenBack,
    BookWanted,
    CardRefused,
    Clerk,
    LoanRegistered,
    library,
    loan_saga,
)
from toolkit import DeclarationError, Participant, Service, Settings


class Catalogue:
    """A resource that a step may take."""


def searching(name: str = "search") -> Participant:
    participant = Participant("library", saga=loan_saga)

    async def search(event: BookWanted, catalogue: Catalogue) -> BookLent: ...

    search.__name__ = name
    participant.step()(search)
    return participant


@asynccontextmanager
async def a_catalogue(_: Settings) -> AsyncIterator[Catalogue]:
    yield Catalogue()


def test_a_steps_missing_resource_is_named() -> None:
    with pytest.raises(DeclarationError) as caught:
        Service(name="library", participants=[searching()])

    assert caught.value.function == f"{__name__}.search"
    assert caught.value.fault == "the parameter 'catalogue' takes a Catalogue, which library does not provide"
    assert caught.value.cure == "Add it: Service(provides={Catalogue: how_to_open_one})"


def test_a_compensations_missing_resource_is_named() -> None:
    participant = Participant("library", saga=loan_saga)

    @participant.step()
    async def lend(event: BookWanted) -> BookLent: ...

    @participant.compensation(of=lend)
    async def take_back(event: CardRefused, catalogue: Catalogue) -> BookTakenBack: ...

    with pytest.raises(DeclarationError, match="take_back: the parameter 'catalogue' takes a Catalogue"):
        Service(name="library", participants=[participant])


def test_two_participants_cannot_have_steps_of_one_name() -> None:
    with pytest.raises(DeclarationError, match=r"Service 'library': two steps are named search\. Rename one"):
        Service(name="library", participants=[searching(), searching()], provides={Catalogue: a_catalogue})


def test_a_joining_compensation_has_a_name_of_its_own() -> None:
    desk, shelf = (Participant(name, saga=loan_saga) for name in ("desk", "shelf"))

    @desk.step()
    async def lend(event: BookWanted) -> BookLent: ...

    @desk.compensation(of=lend)
    async def tidy(card: CardRefused, book: BookTakenBack) -> BookTakenBack: ...

    async def again(event: BookWanted) -> BookLent: ...

    again.__name__ = "tidy"
    shelf.step()(again)

    with pytest.raises(DeclarationError, match="a compensation that joins, and another function, are named tidy"):
        Service(name="library", participants=[desk, shelf])


def test_a_service_knows_one_saga_by_each_name() -> None:
    other = replace(loan_saga, starts_with=BookLent)

    with pytest.raises(DeclarationError, match="two sagas are named loan"):
        Service(name="library", participants=[Participant("one", saga=loan_saga), Participant("two", saga=other)])


def test_an_event_starts_one_saga_alone() -> None:
    other = replace(loan_saga, name="gift")

    with pytest.raises(DeclarationError, match="BookWanted starts two sagas, loan and gift"):
        Service(name="library", participants=[Participant("one", saga=loan_saga), Participant("two", saga=other)])


@pytest.mark.parametrize("name", ["", "a:b", "-a", "ä", "x" * 65, "a b", "a\n"])
def test_a_sagas_name_is_a_plain_word(name: str) -> None:
    with pytest.raises(DeclarationError, match="half of each saga's identity"):
        replace(loan_saga, name=name)


def test_a_service_is_the_sum_of_its_participants() -> None:
    desk = Participant("desk", saga=loan_saga)

    @desk.step()
    async def register(event: BookLent) -> LoanRegistered: ...

    participants = [*library(Clerk()).participants, desk]
    service = Service(name="library", participants=participants, provides={Clerk: a_catalogue})

    assert [step.name for step in service.steps] == ["lend_book", "register"]
    assert [each.name for each in service.compensations] == ["take_back"]
    assert service.sagas == [loan_saga]
    assert service.consumed() == {BookWanted, CardRefused, BookLent}


@pytest.mark.parametrize(
    ("declared", "fault", "cure"),
    [
        ({"participants": searching()}, "its participants are no list", "Pass a list: participants=[library]"),
        ({"participants": ["venue"]}, "its participants hold 'venue', which is no Participant", "Pass a list"),
        ({"participants": None}, "its participants hold None, which is no Participant", "Pass a list"),
        ({"starts": [BookWanted]}, f"it starts [{BookWanted!r}], which is no list of sagas", "Pass a list of sagas"),
        ({"starts": loan_saga}, f"it starts {loan_saga!r}, which is no list of sagas", "Pass a list of sagas"),
        ({"tables": Catalogue}, "its tables are Catalogue, which is no MetaData", "as in tables=Base.metadata"),
        ({"tables": [MetaData()]}, "its tables are [MetaData()], which is no MetaData", "as in tables=Base.metadata"),
    ],
)
def test_another_kind_of_argument_has_a_cure(declared: dict[str, Any], fault: str, cure: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        Service(name="library", **declared)

    assert caught.value.fault == fault
    assert cure in caught.value.cure


@pytest.mark.parametrize("seed", [lambda session: None, len, "seed.sql"], ids=["lambda", "built-in", "text"])
def test_a_seed_has_to_be_a_coroutine_function(seed: Any) -> None:
    with pytest.raises(DeclarationError, match=r"is not a coroutine function\. Declare it as `async def seed"):
        Service(name="library", participants=[searching()], provides={Catalogue: a_catalogue}, seed=seed)


def test_a_seed_may_be_an_awaitable_callable() -> None:
    class Shelves:
        async def __call__(self, session: AsyncSession) -> None: ...

    async def fill(shelf: int, session: AsyncSession) -> None: ...

    for seed in (Shelves(), partial(fill, 1)):
        service = Service(name="library", participants=[searching()], provides={Catalogue: a_catalogue}, seed=seed)
        assert service.seed is seed
