"""A service's middleware is checked when the service is declared."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tests.example_sagas.loans import loan_saga
from toolkit import DeclarationError, Event, Middleware, Participant, Service
from toolkit.declaration.middleware import CallNext
from toolkit.declaration.participant import Compensation, Step


async def tenant(call_next: CallNext, step: Step | Compensation, event: Event) -> Event:
    return await call_next()


async def too_few(call_next: CallNext, event: Event) -> Event:
    return await call_next()


async def too_many(call_next: CallNext, step: Step, event: Event, session: object) -> Event:
    return await call_next()


async def by_name(*, call_next: CallNext, step: Step, event: Event) -> Event:
    return await call_next()


def not_async(call_next: CallNext, step: Step, event: Event) -> Event:
    raise NotImplementedError


class Timing:
    """A middleware with state."""

    async def __call__(self, call_next: CallNext, step: Step | Compensation, event: Event) -> Event:
        return await call_next()

    async def method(self, call_next: CallNext, step: Step | Compensation, event: Event) -> Event:
        return await call_next()


async def of_a_realm(realm: str, call_next: CallNext, step: Step | Compensation, event: Event) -> Event:
    return await call_next()


def declare(middleware: Any) -> Service:
    return Service(name="library", participants=[Participant("library", saga=loan_saga)], middleware=middleware)


def test_a_service_has_no_middleware_by_default() -> None:
    assert list(Service(name="library", participants=[]).middleware) == []


@pytest.mark.parametrize(
    "middleware",
    [tenant, Timing(), Timing().method, partial(of_a_realm, "north")],
    ids=["function", "object", "method", "partial"],
)
def test_an_awaitable_of_three_arguments_is_allowed(middleware: Middleware) -> None:
    assert list(declare([tenant, middleware]).middleware) == [tenant, middleware]


@pytest.mark.parametrize(
    ("middleware", "fault"),
    [
        (not_async, f"its middleware {__name__}.not_async is not a coroutine function"),
        (len, "its middleware builtins.len is not a coroutine function"),
        ("tenant", "its middleware 'tenant' is not a coroutine function"),
        (too_few, f"its middleware {__name__}.too_few can't be called with (call_next, step, event)"),
        (too_many, f"its middleware {__name__}.too_many can't be called with (call_next, step, event)"),
        (by_name, f"its middleware {__name__}.by_name can't be called with (call_next, step, event)"),
    ],
)
def test_a_middleware_of_another_form_is_refused(middleware: Any, fault: str) -> None:
    with pytest.raises(DeclarationError) as caught:
        declare([tenant, middleware])

    assert caught.value.function == "Service 'library'"
    assert caught.value.fault == fault
    assert caught.value.cure == (
        "Declare it as `async def tenant(call_next, step, event)`, and return what `await call_next()` returns"
    )


@pytest.mark.parametrize("middleware", [tenant, "tenant", None], ids=["function", "text", "none"])
def test_middleware_that_is_no_sequence_is_refused(middleware: Any) -> None:
    with pytest.raises(DeclarationError, match=r"is not a sequence\. Pass a list: Service\(middleware=\[tenant\]\)"):
        declare(middleware)
