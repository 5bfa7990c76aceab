"""The desk's declarations."""

from __future__ import annotations

from tests.example_sagas.approval import services
from tests.example_sagas.travel import Script

app = next(each for each in services(Script()) if each.name == "desk")
