"""A release's contents and their known vulnerabilities: `make sbom` and `make audit`."""

from __future__ import annotations

import json
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

from tests.docs.pages import PROJECT

#: The first run installs the tools, from their lock.
pytestmark = pytest.mark.timeout(240)

LOCK = PROJECT / "requirements.lock"


@pytest.fixture(scope="module")
def sbom() -> dict[str, Any]:
    made = subprocess.run(["make", "sbom"], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    return dict(json.loads((PROJECT / "dist" / "saga-toolkit.cdx.json").read_text()))


def pins(lock: str) -> dict[tuple[str, str], set[str]]:
    """Return the hashes of each name and version that a lock pins."""
    pinned = {}
    for line in lock.replace("\\\n", "").splitlines():
        requirement, *hashes = line.split("--hash=sha256:")
        each = Requirement(requirement.strip())
        pinned[each.name, str(each.specifier).removeprefix("==")] = {one.strip() for one in hashes}
    return pinned


def test_sbom_lists_the_locked_packages_and_hashes(sbom: dict[str, Any]):
    listed = {
        (each["name"], each["version"]): {h["content"] for r in each["externalReferences"] for h in r.get("hashes", ())}
        for each in sbom["components"]
    }

    assert listed == pins(LOCK.read_text())
    assert len(listed) > 50


def test_sbom_describes_this_release(sbom: dict[str, Any]):
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]

    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    component = sbom["metadata"]["component"]
    assert (component["name"], component["version"]) == (project["name"], project["version"])
    assert all(each["purl"].startswith("pkg:pypi/") for each in sbom["components"])


@contextmanager
def database(known: dict[str, list[dict[str, Any]]]) -> Iterator[str]:
    """Serve OSV's protocol on a port of this machine, with these vulnerabilities by package."""

    class Answers(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            query = json.loads(self.rfile.read(int(self.headers["content-length"])))
            body = json.dumps({"vulns": known.get(query["package"]["name"], [])}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Log nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def audit(lock: Path, url: str) -> subprocess.CompletedProcess[str]:
    command = [".venv-audit/bin/python", "tests/audit.py", str(lock), url]
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)


@pytest.fixture
def lock(sbom: dict[str, Any], tmp_path: Path) -> Path:
    """A lock of two packages; the SBOM's recipe installs the tools that read it."""
    path = tmp_path / "requirements.lock"
    path.write_text("".join(f"{name}==1.0 --hash=sha256:{64 * '0'}\n" for name in ("jinja2", "rich")))
    return path


@pytest.mark.usefixtures("sbom")
def test_audit_without_a_database_ends_with_3(lock: Path):
    done = audit(lock, "http://127.0.0.1:1")

    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("NOT AUDITED: http://127.0.0.1:1 does not answer")


def test_audit_names_vulnerable_packages_and_fixed_versions(lock: Path):
    fixed = {"events": [{"introduced": "0"}, {"fixed": "3.1.6"}], "type": "ECOSYSTEM"}
    known = {"id": "PYSEC-1", "affected": [{"package": {"name": "jinja2", "ecosystem": "PyPI"}, "ranges": [fixed]}]}

    with database({"jinja2": [known]}) as url:
        found = audit(lock, url)
    with database({}) as url:
        fine = audit(lock, url)

    assert (found.returncode, fine.returncode) == (1, 0), found.stderr + fine.stderr
    assert found.stdout.splitlines() == [
        "jinja2 1.0: PYSEC-1, fixed in 3.1.6",
        "2 of 2 packages looked up, vulnerabilities: 1",
    ]
