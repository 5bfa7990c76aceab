"""Whether another attempt follows a failed one, and when."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.example_sagas.loans import NOON
from toolkit import Retry, RetryPolicy
from toolkit.declaration.retry_policy import GiveUp, TryAgain, after_failure
from toolkit.errors import describe

STEADY = RetryPolicy(attempts=4, first_delay=timedelta(seconds=1), ceiling=timedelta(seconds=5), jitter=0)


@pytest.mark.parametrize(("attempt", "seconds"), [(1, 1), (2, 2), (3, 4), (4, 5), (1_000_000, 5)])
def test_the_delay_doubles_up_to_its_ceiling(attempt: int, seconds: int) -> None:
    assert STEADY.delay_after(attempt) == timedelta(seconds=seconds)


@given(attempt=st.integers(1, 10_000), jitter=st.floats(0, 1))
def test_jitter_stays_within_its_share(attempt: int, jitter: float) -> None:
    policy = RetryPolicy(first_delay=timedelta(seconds=1), ceiling=timedelta(seconds=5), jitter=jitter)

    delay = policy.delay_after(attempt)

    assert timedelta(0) <= delay <= timedelta(seconds=5) * (1 + jitter) + timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("name", "value"), [("attempts", 0), ("factor", 0.5), ("factor", 101), ("jitter", -0.1), ("jitter", 1.1)]
)
def test_a_policy_names_a_value_out_of_bounds(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        RetryPolicy(**{name: value})


def test_a_failed_attempt_is_followed_by_another() -> None:
    verdict = after_failure(ConnectionError("away"), policy=STEADY, attempt=2, now=NOON, deadline=None)

    assert verdict == TryAgain(NOON + timedelta(seconds=2))


def test_the_last_attempt_is_followed_by_none() -> None:
    verdict = after_failure(ConnectionError("away"), policy=STEADY, attempt=4, now=NOON, deadline=None)

    assert verdict == GiveUp("retries spent after 4 attempts: ConnectionError: away")


def test_one_attempt_is_counted_in_singular() -> None:
    verdict = after_failure(ValueError("no"), policy=replace(STEADY, attempts=1), attempt=1, now=NOON, deadline=None)

    assert verdict == GiveUp("retries spent after 1 attempt: ValueError: no")


@pytest.mark.parametrize(("seconds", "kind"), [(0.9, GiveUp), (1, GiveUp), (1.1, TryAgain)])
def test_no_attempt_comes_at_or_after_the_deadline(seconds: float, kind: type) -> None:
    deadline = NOON + timedelta(seconds=seconds)

    verdict = after_failure(ConnectionError("away"), policy=STEADY, attempt=1, now=NOON, deadline=deadline)

    assert isinstance(verdict, kind)


def test_an_error_outside_retry_on_is_final() -> None:
    picky = RetryPolicy(retry_on=(ConnectionError,))

    verdict = after_failure(ValueError("wrong\0 card"), policy=picky, attempt=1, now=NOON, deadline=None)

    assert verdict == GiveUp("not worth a retry: ValueError: wrong card")


def test_a_raised_retry_overrides_the_policys_exceptions() -> None:
    picky = RetryPolicy(attempts=2, retry_on=(ConnectionError,), jitter=0)
    after_a_day = Retry("closed on Sundays", after=timedelta(days=1))

    asked = after_failure(after_a_day, policy=picky, attempt=1, now=NOON, deadline=None)
    unhurried = after_failure(Retry(), policy=picky, attempt=1, now=NOON, deadline=None)
    spent = after_failure(Retry(), policy=picky, attempt=2, now=NOON, deadline=None)

    assert asked == TryAgain(NOON + timedelta(days=1))
    assert unhurried == TryAgain(NOON + picky.first_delay)
    assert spent == GiveUp("retries spent after 2 attempts: Retry: the step asked for a retry")


def test_an_error_is_described_in_one_bounded_line() -> None:
    assert describe(ValueError("two\nlines\0")) == "ValueError: two lines"
    assert describe(ValueError()) == "ValueError"
    assert len(describe(ValueError("x" * 10_000))) == 500
