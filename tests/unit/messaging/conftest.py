"""A decoder of the library's events."""

from __future__ import annotations

import pytest

from tests.example_sagas.loans import Clerk, library, loan_saga
from toolkit.messaging.decoding import Decoder


@pytest.fixture
def decoder() -> Decoder:
    return Decoder(library(Clerk()).consumed(), [loan_saga], max_body=1000)
