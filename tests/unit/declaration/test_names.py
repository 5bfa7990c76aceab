"""Names that become parts of queues, files and routing keys have to be plain words at the declaration."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.example_sagas.loans import loan_saga
from toolkit import Event, Participant, SagaId, Service
from toolkit.errors import DeclarationError
from toolkit.persistence.postgres import LONGEST_IDLE
from toolkit.runtime.invocation import LONGEST_STEP


@pytest.mark.parametrize("name", ["../escaped", "", "a b", "a.dead", "a" * 65, 5])
def test_a_service_without_a_plain_name_is_refused(name: Any) -> None:
    with pytest.raises(DeclarationError, match="its name is not a plain word"):
        Service(name=name, participants=[])
    with pytest.raises(DeclarationError, match="its name is not a plain word"):
        Participant(name, saga=loan_saga)


@pytest.mark.parametrize("owner", ["*", "a.b", "#", "a b", 3])
def test_an_owner_without_a_plain_name_is_refused(owner: Any) -> None:
    with pytest.raises(DeclarationError, match=r"its owner .* is not a plain word"):
        type("BookFound", (Event,), {}, owner=owner)


@pytest.mark.parametrize("version", [0, -1, "2", 1.5, True])
def test_a_version_that_does_not_count_is_refused(version: Any) -> None:
    with pytest.raises(DeclarationError, match="is not a whole number from 1"):
        type("BookFound", (Event,), {}, owner="library", version=version)


@pytest.mark.parametrize(
    ("name", "owner"),
    [("AbortRequested", "desk"), ("EndRequested", "desk"), ("SagaEnded", "desk"), ("BookFound", "saga")],
)
def test_the_names_of_control_messages_are_refused(name: str, owner: str) -> None:
    with pytest.raises(DeclarationError, match="a control message has"):
        type(name, (Event,), {"__annotations__": {"loan_id": SagaId}}, owner=owner)


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"timeout": 5}, "its timeout 5 is not a positive timedelta"),
        ({"timeout": timedelta(0)}, "is not a positive timedelta"),
        ({"retry": 3}, "its retry 3 is not a RetryPolicy"),
        ({"external": "yes"}, "is neither True nor False"),
    ],
)
def test_an_option_of_another_kind_is_refused(options: dict[str, Any], fault: str) -> None:
    with pytest.raises(DeclarationError, match=fault):
        Participant("desk", saga=loan_saga, **options)
    with pytest.raises(DeclarationError, match=fault):
        Participant("desk", saga=loan_saga).step(**options)(_nothing)


async def _nothing() -> None:
    raise NotImplementedError


def test_steps_time_out_before_the_servers_sessions() -> None:
    assert LONGEST_IDLE >= LONGEST_STEP + 10
