"""The objects that a test provides to steps, in place of those that their services open."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from inspect import isfunction, ismethod
from typing import Any

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Provider, Service
from toolkit.errors import WorldError


def check_provided(provides: Iterable[type], services: Sequence[Service]) -> None:
    """Check that each provided type is one that a service provides to its steps.

    Raises:
        WorldError: one is not, so the object would not be used.
    """
    known = sorted({kind.__name__ for service in services for kind in service.provides})
    for kind in provides:
        if not any(kind in service.provides for service in services):
            raise WorldError(f"no service provides a {kind.__name__} to its steps: take one of {', '.join(known)}")


def made(resource: Any) -> Any:
    """Return an object: a class or a function makes one, anything else is one."""
    return resource() if isinstance(resource, type) or isfunction(resource) or ismethod(resource) else resource


def provider_of(resource: Any) -> Provider:
    """Return a provider of this object."""

    @asynccontextmanager
    async def provide(_: Settings) -> AsyncIterator[Any]:
        yield resource

    return provide
