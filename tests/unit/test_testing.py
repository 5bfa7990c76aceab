"""The test helpers that the toolkit ships."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from toolkit.testing import NOON, ManualClock


def test_a_manual_clock_moves_only_when_advanced() -> None:
    clock = ManualClock()

    assert clock.now() == clock.now() == NOON
    clock.advance(timedelta(minutes=5))
    assert clock.now() == NOON + timedelta(minutes=5)


def test_a_manual_clock_can_be_set_and_reversed() -> None:
    clock = ManualClock(datetime(2031, 2, 3, tzinfo=UTC))

    clock.advance(timedelta(hours=-1))

    assert clock.now() == datetime(2031, 2, 2, 23, tzinfo=UTC)
