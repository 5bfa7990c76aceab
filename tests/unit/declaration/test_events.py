"""Events have an owner, and a saga the events that end it."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tests.example_sagas.loans import BookLent, BookWanted, LoanFailed, LoanRefused, LoanRegistered, loan_saga
from toolkit import DeclarationError, Event, SagaId
from toolkit.declaration.events import SagaState, documented_example, routing_key


class BookReturned(Event, owner="library", version=2, optional=True):
    model_config = ConfigDict(json_schema_extra={"examples": [{"loan_id": "loan-1"}, {"loan_id": "loan-2"}]})
    loan_id: SagaId


class BookReturnedLate(BookReturned):
    days: int = 1


def test_owner_and_name_form_the_routing_key() -> None:
    assert routing_key(BookReturned) == "library.BookReturned"


def test_an_event_inherits_its_owner_and_nothing_else() -> None:
    late = BookReturnedLate
    assert (late.__owner__, late.__version__, late.__optional__) == ("library", 1, False)
    assert (BookReturned.__version__, BookReturned.__optional__) == (2, True)


def test_an_unknown_class_keyword_is_named() -> None:
    with pytest.raises(DeclarationError) as caught:

        class Misspelt(Event, owner="library", vresion=2):
            loan_id: SagaId

    assert caught.value.fault == "it has an unknown class keyword vresion"
    assert caught.value.cure.startswith("Use owner=, version=, optional=")


def test_an_event_does_not_change() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        BookLent(loan_id="loan-1").loan_id = "loan-2"  # type: ignore[misc]  # what the test is about


@pytest.mark.parametrize("good", ["a", "order-1001", "A.b_c:d-9", "x" * 64])
def test_a_saga_id_is_anything_printable_without_quoting(good: str) -> None:
    assert TypeAdapter(SagaId).validate_python(good) == good


@pytest.mark.parametrize("bad", ["", "-a", "a b", "a\n", "a/b", "é", "x" * 65, "a\0"])
def test_a_saga_id_is_nothing_else(bad: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(SagaId).validate_python(bad)


def test_an_event_is_built_of_what_it_knows() -> None:
    refusal = loan_saga.build(LoanRefused, saga_id="loan-1", reason="lent out")
    lent = loan_saga.build(BookLent, saga_id="loan-1", reason="lent out")

    assert refusal == LoanRefused(loan_id="loan-1", reason="lent out")
    assert lent == BookLent(loan_id="loan-1")


@pytest.mark.parametrize(
    ("event", "state", "is_ended"),
    [
        (LoanRegistered, SagaState.COMPLETED, True),
        (LoanFailed, SagaState.FAILED, True),
        (BookLent, SagaState.PENDING, False),
    ],
)
def test_the_end_events_end_the_saga(event: type[Event], state: SagaState, is_ended: bool) -> None:
    assert loan_saga.state_after(event) is state
    assert state.is_ended is is_ended


class OddExamples(Event, owner="library"):
    model_config = ConfigDict(json_schema_extra={"examples": ["not an object"]})


def test_the_first_documented_example_is_a_copy() -> None:
    documented_example(BookReturned)["loan_id"] = "changed"

    assert documented_example(BookReturned) == {"loan_id": "loan-1"}
    assert documented_example(BookWanted) == {}
    assert documented_example(OddExamples) == {}
    assert issubclass(BookReturned, BaseModel)
