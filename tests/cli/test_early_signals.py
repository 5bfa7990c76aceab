"""A service that is gets a signal while it starts ends in good order."""

from __future__ import annotations

import os
import subprocess

from tests.cli.conftest import PROJECT, command

#: The service's process signals itself after its own handlers are set, and before those of its server.
SIGNALLED = """
import gc, os, signal

from services.notification.app import app

gc.collect = lambda: os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_signal_during_the_start_ends_it(environment, tmp_path):
    (tmp_path / "signalled.py").write_text(SIGNALLED)
    variables = os.environ | environment | {"PYTHONPATH": f"{tmp_path}:{PROJECT}", "SAGA_DATA_DIR": str(tmp_path)}

    done = subprocess.run(
        command("run", "signalled:app"), env=variables, capture_output=True, text=True, timeout=200, check=False
    )

    assert done.returncode == 0, done.stderr
    assert "service stopped" in done.stderr
