"""Runs the coordinator of a trip in a process of its own, which a test kills; its settings are in the environment."""

from __future__ import annotations

import sys

from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services
from tests.example_sagas.travel import Script
from toolkit.configuration.settings import load_settings
from toolkit.service_process import run_service

if __name__ == "__main__":
    (service,) = [each for each in orchestrated_services(Script()) if each.name == COORDINATOR]
    sys.exit(run_service(service, load_settings()))
