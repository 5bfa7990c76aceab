"""A service in an application leaves the process as it is."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from toolkit import Settings


async def test_an_embedded_service_changes_nothing_of_its_process(settings: Settings, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.unit.embedding.untouched", settings.broker_url, settings.exchange, tmp_path]
    tracing = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"}  # with traces, too, no provider is set

    process = await asyncio.create_subprocess_exec(*command, env=os.environ | tracing, stdout=subprocess.PIPE)
    output, _ = await process.communicate()

    found = json.loads(output.splitlines()[-1])
    assert found["changed"] == []
    assert found["decoding"][0] == found["decoding"][1]
    assert found["decoding"][0]["reader"] == "aiormq.connection"


def test_the_names_of_embedding_load_no_web_framework() -> None:
    script = (
        "import sys, toolkit, toolkit.embedding\n"
        "from toolkit import start, answer\n"
        "print(sorted({'aio_pika', 'aiosqlite', 'asyncpg', 'fastapi', 'faststream', 'starlette'} & {*sys.modules}))"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=200, check=True)

    assert done.stdout == "[]\n"
