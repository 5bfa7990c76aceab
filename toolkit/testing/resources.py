"""The objects that a test provides to steps, in place of those that their services open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from inspect import isfunction, ismethod
from typing import Any

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Provider


def made(resource: Any) -> Any:
    """Return an object: a class or a function makes one, anything else is one."""
    return resource() if isinstance(resource, type) or isfunction(resource) or ismethod(resource) else resource


def provider_of(resource: Any) -> Provider:
    """Return a provider of this object."""

    @asynccontextmanager
    async def provide(_: Settings) -> AsyncIterator[Any]:
        yield resource

    return provide
