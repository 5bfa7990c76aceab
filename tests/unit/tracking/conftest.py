"""A world of services for each test, embedded in its process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.conformance.world import EmbeddedWorld, settings_for


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[EmbeddedWorld]:
    """Start the trip's services."""
    world = EmbeddedWorld(settings_for(tmp_path))
    await world.start()
    yield world
    await world.stop()
