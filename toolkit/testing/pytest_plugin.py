"""The toolkit's plugin for pytest: fixtures for sagas.

pytest imports this module wherever the toolkit is installed; all else is imported by the first test that uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from toolkit.testing import SagaWorld


@pytest.fixture
def saga_world() -> Iterator[Callable[..., SagaWorld]]:
    """Open worlds of services, as `toolkit.testing.SagaWorld` does, and close them after the test."""
    from toolkit.testing import SagaWorld

    with ExitStack() as stack:

        def open_world(*services: Any, **options: Any) -> SagaWorld:
            return stack.enter_context(SagaWorld(*services, **options))

        yield open_world
