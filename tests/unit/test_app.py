"""A service's port is its own from the moment that it has it."""

from __future__ import annotations

import pytest

from toolkit import Settings
from toolkit.app import _listen
from toolkit.errors import SettingsError


def test_two_services_that_start_at_once_never_get_the_same_port() -> None:
    with _listen(Settings(http_port=0)) as first:
        taken = first.getsockname()[1]

        with pytest.raises(SettingsError, match=f"SAGA_HTTP_PORT={taken} can't be listened on"):
            _listen(Settings(http_port=taken))
