"""A service keeps its port from the moment that it listens."""

from __future__ import annotations

import socket

import pytest

from toolkit import Settings
from toolkit.errors import SettingsError
from toolkit.web.listeners import listen


def test_two_starting_services_never_share_a_port() -> None:
    first = listen(Settings(http_port=0))
    ports = [each.getsockname()[1] for each in first]

    for name, port in zip(("HTTP", "HEALTH"), ports, strict=True):
        with pytest.raises(SettingsError, match=f"SAGA_{name}_PORT={port} can't be listened on"):
            listen(Settings(**{"http_port": 0, f"{name.lower()}_port": port}))
    for each in first:
        each.close()


def test_one_port_for_both_is_one_listener(free_port: int) -> None:
    (both,) = listen(Settings(http_port=free_port, health_port=free_port))

    assert both.getsockname()[1] == free_port
    both.close()


@pytest.fixture
def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
