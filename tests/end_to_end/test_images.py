"""One file pins the base images by digest, and all builds and containers use them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.servers import docker_is_there

PROJECT = Path(__file__).parents[2]
PINS = PROJECT / "deploy" / "images.env"
#: Pinned by version only: images of the observability profile, which see traces and no events.
UNPINNED = {"otel/opentelemetry-collector:0.130.0", "jaegertracing/jaeger:2.8.0"}
DIGEST = "sha256:" + "0" * 64


def pins() -> dict[str, str]:
    return dict(line.split("=", 1) for line in PINS.read_text().splitlines() if not line.startswith("#"))


def composed(*options: str, **variables: str) -> dict[str, Any]:
    """Return Compose's configuration of compose.yaml, with these `SAGA_` variables only."""
    if not docker_is_there():
        pytest.skip("no Docker engine answers on this machine")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SAGA_")} | variables
    done = subprocess.run(
        ["docker", "compose", *options, "config"],
        cwd=PROJECT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return dict(yaml.safe_load(done.stdout)["services"])


def images(services: dict[str, Any]) -> set[str]:
    """Return all base images and all run images."""
    bases = {each["build"]["args"]["PYTHON_IMAGE"] for each in services.values() if "build" in each}
    return bases | {each["image"] for each in services.values() if "image" in each} - {"saga-toolkit"}


def test_the_pins_replace_each_tag_by_digests():
    tags = images(composed())

    pinned = images(composed("--env-file", str(PINS)))

    assert {each.partition("@")[0] for each in pinned} == {each.partition("@")[0] for each in tags}
    assert set(pins().values()) == pinned - tags
    assert {each for each in pinned if not re.search("@sha256:[0-9a-f]{64}$", each)} == UNPINNED


def test_each_image_stage_uses_the_pin():
    stages = re.findall("^FROM (\\S+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE)

    built = subprocess.run(
        ["docker", "build", "--build-arg", f"PYTHON_IMAGE={DIGEST}", "."],
        cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip

    assert set(stages) == {"${PYTHON_IMAGE}"}
    assert built.returncode != 0  # there is no such image


def test_pins_stay_when_a_tag_is_unavailable(tmp_path: Path):
    file = tmp_path / "images.env"
    file.write_text(f"SAGA_PYTHON_IMAGE=127.0.0.1:9/python:3.13-slim@{DIGEST}\n")

    done = subprocess.run(["deploy/pin-images", file], cwd=PROJECT, capture_output=True, text=True, timeout=60)

    assert done.returncode == 1
    assert "127.0.0.1:9/python:3.13-slim can't be fetched" in done.stderr
    assert DIGEST in file.read_text()
