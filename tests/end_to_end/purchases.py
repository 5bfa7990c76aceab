"""The services of a purchase that waits for an officer's answer, for `saga run tests.end_to_end.purchases:desk`."""

from __future__ import annotations

from tests.example_sagas.approval import services
from tests.example_sagas.travel import Script

quotes, desk, buyer = services(Script())
