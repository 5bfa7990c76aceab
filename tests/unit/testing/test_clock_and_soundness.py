"""The test helpers that the toolkit ships."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from services.demo import SERVICES
from toolkit.testing import NOON, ManualClock, assert_sound


def test_a_manual_clock_moves_only_when_advanced() -> None:
    clock = ManualClock()

    assert clock.now() == clock.now() == NOON
    clock.advance(timedelta(minutes=5))
    assert clock.now() == NOON + timedelta(minutes=5)


def test_a_manual_clock_can_be_set_and_reversed() -> None:
    clock = ManualClock(datetime(2031, 2, 3, tzinfo=UTC))

    clock.advance(timedelta(hours=-1))

    assert clock.now() == datetime(2031, 2, 2, 23, tzinfo=UTC)


def test_sound_services_pass_their_check() -> None:
    assert_sound(SERVICES)


def test_a_fault_fails_the_check_with_its_cure() -> None:
    without_notification = [each for each in SERVICES if each.name != "notification"]

    with pytest.raises(AssertionError, match=r"(?s)no service consumes it.*\nno end: .*reserve_inventory refuses"):
        assert_sound(without_notification)
