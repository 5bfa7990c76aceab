"""How many races a test runs: few in the daily suite, as many as `RACES` says in `make races`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import TypeVar

import pytest

T = TypeVar("T")

_RACES = int(os.environ.get("RACES", "0"))
#: So many sagas race at once; in a single crowd of thousands the last ones would wait longer than any test does.
_AT_ONCE = 100
#: The longest that a race takes on a busy machine, in seconds.
_LONGEST = 2


def races(few: int) -> int:
    """Return how many races to run: these few, or as many as the environment says."""
    return _RACES or few


def patience(few: int) -> pytest.MarkDecorator:
    """Return the time limit of a test that runs so many races."""
    return pytest.mark.timeout(240 + races(few) * _LONGEST)


def waves(items: Sequence[T]) -> Iterator[list[T]]:
    """Yield the items in the crowds that race at once."""
    rest = iter(items)
    while wave := list(islice(rest, _AT_ONCE)):
        yield wave
