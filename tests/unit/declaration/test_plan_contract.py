"""A coordinator's contract has each plan that the starting event's examples lead to, once."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from pydantic import ConfigDict, field_validator

from toolkit import Event, Received, Saga, SagaId, SagaOrchestrator, SagaStep, Service
from toolkit.declaration.contract import Contract
from toolkit.declaration.plan_contract import PlanContract, plans_of
from toolkit.orchestration.orchestrator import Parallel


class TripWanted(Event, owner="client"):
    model_config = ConfigDict(json_schema_extra={"examples": [{"trip_id": "t-1"}, {"trip_id": "by-car"}]})

    trip_id: SagaId

    @field_validator("trip_id")
    @classmethod
    def _known(cls, trip_id: str) -> str:
        if trip_id == "broken":
            raise RuntimeError("a validator of the author's own")
        return trip_id


class TripDone(Event, owner="agency", optional=True):
    trip_id: SagaId


class TripOff(Event, owner="office", optional=True):
    trip_id: SagaId


TRIP = Saga(name="trip", id_field="trip_id", starts_with=TripWanted, completes_with=TripDone, fails_with=TripOff)


def done(received: Received) -> TripDone:
    return TripDone(trip_id=received[TripWanted].trip_id)


class Agency(SagaOrchestrator, saga=TRIP):
    failed_end = SagaStep("call_off", action=done)

    def define_steps(self, data: TripWanted) -> list[SagaStep | Parallel]:
        if data.trip_id == "by-car":
            return [SagaStep("book_car")]
        rooms = SagaStep("book_room", timeout=timedelta(minutes=1)), SagaStep("book_flight")
        return [Parallel(*rooms), SagaStep("confirm", action=done)]


APP = Service(name="agency", orchestrators=[Agency])


def plans_for(*examples: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> tuple[PlanContract, ...]:
    monkeypatch.setattr(TripWanted, "model_config", ConfigDict(json_schema_extra={"examples": [*examples]}))
    return plans_of(Agency, service="agency", timeouts={})


def test_a_contract_has_a_plan_for_each_example() -> None:
    first, second = Contract.of(APP).plans["trip"]

    assert first == PlanContract(
        coordinator="agency", groups=(("book_room", "book_flight"), ("confirm",)), failed_end="call_off", examples=(1,),
        builds=("confirm", "call_off"), timeouts={"book_room": 60.0}, ends=("TripDone",),
    )  # fmt: skip
    assert (second.groups, second.examples, second.builds) == ((("book_car",),), (2,), ("call_off",))


def test_settings_override_the_timeouts_of_a_plan() -> None:
    timeouts = {"book_room": timedelta(seconds=5), "confirm": timedelta(seconds=7)}

    assert Contract.of(APP, timeouts=timeouts).plans["trip"][0].timeouts == {"book_room": 5.0, "confirm": 7.0}


def test_examples_with_one_plan_are_named_once(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = ("t-1", "by-car", "t-2")

    found = plans_for(*({"trip_id": each} for each in ids), monkeypatch=monkeypatch)

    assert [plan.examples for plan in found] == [(1, 3), (2,)]


@pytest.mark.parametrize(
    ("trip_id", "error"),
    [
        ("a b", "example 2 of TripWanted is invalid: trip_id: string_pattern_mismatch"),
        ("broken", "example 2 of TripWanted is invalid: RuntimeError: a validator of the author's own"),
    ],
)
def test_an_invalid_example_leads_to_no_plan(monkeypatch: pytest.MonkeyPatch, trip_id: str, error: str) -> None:
    _, plan = plans_for({"trip_id": "t-1"}, {"trip_id": trip_id}, monkeypatch=monkeypatch)

    assert (plan.error, plan.groups, plan.examples) == (error, (), (2,))
    assert plan.cure == "Correct the example"


def test_a_function_that_raises_makes_no_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Agency, data: TripWanted) -> list[SagaStep]:
        return [SagaStep(name) for name in (data.trip_id[99],)]

    monkeypatch.setattr(Agency, "define_steps", broken)

    (plan,) = plans_for({"trip_id": "t-1"}, monkeypatch=monkeypatch)

    assert plan.error == "define_steps raises on example 1 of TripWanted: IndexError: string index out of range"
    assert plan.examples == (1,)


def test_an_event_without_examples_leads_to_none(monkeypatch: pytest.MonkeyPatch) -> None:
    (plan,) = plans_for(monkeypatch=monkeypatch)

    assert (plan.error, plan.examples) == ("TripWanted has no documented example", ())


def test_a_contract_of_an_older_release_is_read() -> None:
    older = Contract.of(APP).model_dump(mode="json")
    older["plans"] = {"trip": {"coordinator": "agency", "groups": [["book_car"]], "failed_end": None}}

    (plan,) = Contract.model_validate(older).plans["trip"]

    assert (plan.groups, plan.examples, plan.error) == ((("book_car",),), (), None)
