"""Helpers for tests of your own sagas: the check of every interleaving, one interleaving played, and a manual clock."""

from toolkit.testing.clock import NOON, ManualClock
from toolkit.testing.samples import sample
from toolkit.testing.scenario import Scenario
from toolkit.testing.soundness import assert_sound

__all__ = ["NOON", "ManualClock", "Scenario", "assert_sound", "sample"]
