"""The order saga's demonstration by a coordinator, `saga demo orchestrated`: the same orders, with the same ends."""

from __future__ import annotations

from dataclasses import replace

from examples.orchestrated.fulfillment.app import app as fulfillment
from services import demo as services
from toolkit.cli.demonstration import Demo, run

DEMO: Demo = replace(
    services.DEMO,
    package="examples.orchestrated",
    directory="demo-orchestrated",
    services=(*services.SERVICES, fulfillment),
    settings={"asked_by": {"order": fulfillment.name}},
    try_next=(
        "ls",
        "trace demo-bounced",
        "log fulfillment --saga demo-antarctica",
        "verify",
        "topology",
    ),
)


def main() -> int:
    """Run the demonstration; return 0 if every order ended as expected and the accounts add up, else 1."""
    return run(DEMO)
