"""Look up which pinned packages have known vulnerabilities: `make audit`.

Exits with 0 if none has, 1 if any has, and 3 if one or more were not looked up. pip-audit itself ends with 0 if the
database lacks a package, and with 1 and a traceback if the database does not answer.
"""

# ruff: noqa: T201 -- a command's output

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

#: It contains PyPI's advisories. PyPI's own service is not used: a mirror of the index answers 404 instead, for each
#: package, and pip-audit then finds nothing.
DATABASE = "https://api.osv.dev/v1/query"


def main(lock: str, database: str = DATABASE) -> int:
    """Print the known vulnerabilities of a lock file's packages; return the exit code."""
    command = [str(Path(sys.executable).with_name("pip-audit")), "--requirement", lock, "--disable-pip"]
    command += ["--require-hashes", "--vulnerability-service", "osv", "--osv-url", database]
    done = subprocess.run(
        [*command, "--format", "json", "--progress-spinner", "off"], capture_output=True, text=True, check=False
    )
    if not done.stdout.strip():
        reason = (done.stderr.strip().splitlines() or ["pip-audit printed nothing"])[-1]
        print(f"NOT AUDITED: {database} does not answer, so {lock} was not looked up: {reason}", file=sys.stderr)
        return 3
    return _report(json.loads(done.stdout)["dependencies"])


def _report(packages: list[dict[str, Any]]) -> int:
    unknown = [each["name"] for each in packages if "skip_reason" in each]
    found = [(each, vulnerability) for each in packages for vulnerability in each.get("vulns", ())]
    for package, vulnerability in found:
        cure = ", ".join(vulnerability["fix_versions"]) or "no release yet"
        print(f"{package['name']} {package['version']}: {vulnerability['id']}, fixed in {cure}")
    if unknown:
        print(f"NOT AUDITED: {', '.join(unknown)}", file=sys.stderr)
    print(f"{len(packages) - len(unknown)} of {len(packages)} packages looked up, vulnerabilities: {len(found)}")
    return 1 if found else 3 if unknown else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
