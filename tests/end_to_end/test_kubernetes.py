"""The files for Kubernetes: by its own schemas, like the containers of compose, and a service that runs as they say."""

from __future__ import annotations

import asyncio
import os
import re
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

from tests.end_to_end.breakable import free_port
from tests.end_to_end.fleet import Fleet, sqlite_databases
from tests.eventually import eventually
from tests.servers import Server
from toolkit import Settings

PROJECT = Path(__file__).parents[2]
FILES = sorted((PROJECT / "deploy/kubernetes").glob("*.yaml"))
#: The oldest release that docs/how-to/kubernetes.md names, and the newest one with a schema.
RELEASES = ("1.32", kubernetes_validate.latest_version())
#: How long a service takes to stop, at most: docs/how-to/run-services.md.
DRAIN = 8


def manifest(name: str) -> dict[str, Any]:
    return yaml.safe_load((PROJECT / "deploy/kubernetes" / f"{name}.yaml").read_text())


def pod() -> dict[str, Any]:
    return manifest("deployment")["spec"]["template"]["spec"]


def container() -> dict[str, Any]:
    (only,) = pod()["containers"]
    return only


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_valid_by_kubernetes_schema(path: Path, release: str):
    kubernetes_validate.validate(yaml.safe_load(path.read_text()), release, strict=True)


def test_the_schema_refuses_a_misspelt_field():
    wrong = manifest("deployment")
    wrong["spec"]["template"]["spec"]["terminationGracePeriod"] = 20

    with pytest.raises(kubernetes_validate.ValidationError, match="terminationGracePeriod"):
        kubernetes_validate.validate(wrong, RELEASES[-1], strict=True)


def test_all_files_select_the_deployments_pods():
    labels = manifest("deployment")["spec"]["template"]["metadata"]["labels"]

    selectors = [
        manifest("deployment")["spec"]["selector"]["matchLabels"],
        manifest("service")["spec"]["selector"],
        manifest("poddisruptionbudget")["spec"]["selector"]["matchLabels"],
        manifest("networkpolicy")["spec"]["podSelector"]["matchLabels"],
    ]

    assert all(selector.items() <= labels.items() for selector in selectors)
    ports = {each["name"]: each["containerPort"] for each in container()["ports"]}
    assert {each["targetPort"]: each["port"] for each in manifest("service")["spec"]["ports"]} == ports
    image = (PROJECT / "Dockerfile").read_text()
    assert f"SAGA_HTTP_PORT={ports['http']} SAGA_HEALTH_PORT={ports['health']} " in image
    assert f"--uid {pod()['securityContext']['runAsUser']} " in image


def test_a_container_has_the_rights_of_compose():
    compose = yaml.safe_load((PROJECT / "compose.yaml").read_text())["services"]["inventory"]
    security = container()["securityContext"]

    assert security["readOnlyRootFilesystem"] is compose["read_only"]
    assert security["capabilities"]["drop"] == compose["cap_drop"]
    assert security["allowPrivilegeEscalation"] is ("no-new-privileges:true" not in compose["security_opt"])
    assert container()["resources"]["limits"]["memory"] == f"{compose['mem_limit'].removesuffix('m')}Mi"
    assert container()["args"] == compose["command"]
    version = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["version"]
    assert container()["image"] == f"{compose['image'].partition(':-')[2].removesuffix('}')}:{version}"


async def test_a_service_runs_and_stops_as_the_files_say(rabbitmq: Server, tmp_path: Path, prefix: str) -> None:
    ports = {"http": free_port(), "health": free_port()}
    settings = Settings(broker_url=rabbitmq.url, exchange=prefix, data_dir=tmp_path)
    fleet = Fleet(settings, sqlite_databases(tmp_path))
    environment = os.environ | await of_the_pod(tmp_path, rabbitmq.url, fleet.databases["inventory"].url) | {
        "SAGA_EXCHANGE": prefix,
        "SAGA_DATA_DIR": str(tmp_path),
        "SAGA_HTTP_HOST": "0.0.0.0",
        "SAGA_HTTP_PORT": str(ports["http"]),
        "SAGA_HEALTH_PORT": str(ports["health"]),
    }  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "toolkit.cli", *container()["args"], env=environment, cwd=PROJECT
    )

    async def succeeds(kind: str) -> bool:
        get = container()[f"{kind}Probe"]["httpGet"]
        return await status(ports[get["port"]], get["path"], host="10.244.1.7") == 200

    try:
        for kind in ("startup", "liveness", "readiness"):
            await eventually(lambda kind=kind: succeeds(kind), within=60, what=f"the {kind} probe")
        assert await status(ports["http"], "/healthz", host="inventory.shop.svc.cluster.local") == 200
        assert await status(ports["http"], "/healthz", host="inventory.elsewhere") == 421
        begun = time.monotonic()
    finally:
        process.terminate()
        code = await process.wait()
        await fleet.stop()

    assert code == 0
    assert time.monotonic() - begun < DRAIN + 1  # a busy machine's
    pause = container()["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert pod()["terminationGracePeriodSeconds"] >= pause + DRAIN + 5


async def of_the_pod(directory: Path, broker_url: str, database_url: str) -> dict[str, str]:
    """Return the container's variables in the namespace `shop`, with the files of its Secret in this directory."""
    digest = f"sha256:{'0' * 64}"
    secret = {"broker-url": broker_url, "database-url": database_url, "api-token-digest": digest}
    secret |= {"api-read-token-digest": digest.replace("0", "1")}
    for name, content in secret.items():
        (directory / name).write_text(content)
    (mount,) = [each["mountPath"] for each in container()["volumeMounts"] if each["name"] == "secrets"]
    literal = {each["name"]: each["value"] for each in container()["env"] if "value" in each}
    assert {each["name"] for each in container()["env"]} - literal.keys() == {"POD_NAMESPACE"}
    variables = {name: re.sub(r"\$\(POD_NAMESPACE\)", "shop", value) for name, value in literal.items()}
    return variables | {k: v.replace(mount, str(directory)) for k, v in manifest("configmap")["data"].items()}


async def status(port: int, path: str, *, host: str) -> int | None:
    """Return the status of an answer to a request by this host name; None without one."""
    async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
        try:
            return (await client.get(f"http://127.0.0.1:{port}{path}", headers={"Host": host})).status_code
        except httpx.TransportError:
            return None
