"""The transfer's demonstration, `saga demo transfer`: transfers that succeed, and transfers that fail at each step."""

from __future__ import annotations

from examples.transfer.accounts import CHECKS
from examples.transfer.clearing.app import app as clearing
from examples.transfer.events import transfer_saga
from examples.transfer.receiver_bank.app import app as receiver_bank
from examples.transfer.sender_bank.app import app as sender_bank
from toolkit.cli.demonstration import Demo, End, Scenario, run
from toolkit.declaration.events import SagaState

COMPLETED, FAILED = SagaState.COMPLETED, SagaState.FAILED

TRANSFERS = (
    Scenario("demo-fine", "nothing goes wrong", End(COMPLETED)),
    Scenario("demo-empty", "the sender has too little", End(FAILED), ("sender=EMPTY",)),
    Scenario("demo-pigeon", "no such scheme", End(FAILED, ("sender_bank",)), ("scheme=pigeon",)),
    Scenario("demo-closed", "the account is closed", End(FAILED, ("clearing", "sender_bank")), ("receiver=CLOSED",)),
    Scenario("demo-nobody", "there is no account", End(FAILED, ("clearing", "sender_bank")), ("receiver=NO-SUCH",)),
    Scenario("demo-flaky", "the house works at last", End(COMPLETED, retries=2), ("scheme=flaky",)),
    Scenario("demo-down", "the house never works", End(FAILED, ("sender_bank",), 3), ("scheme=down",)),
    Scenario("demo-twice", "it is sent twice", End(COMPLETED), sent=2),
)

DEMO = Demo(
    package="examples.transfer",
    directory="demo-transfer",
    saga=transfer_saga,
    services=(sender_bank, clearing, receiver_bank),
    scenarios=TRANSFERS,
    ledgers=("CLEARING_HOUSE_URL",),
    always=CHECKS,
    try_next=(
        "ls",
        "trace demo-closed",
        "log clearing --saga demo-flaky",
        "trigger TransferRequested --set receiver=CLOSED --wait 10",
        "verify",
        "graph",
    ),
)


def main() -> int:
    """Run the demonstration; return 0 if every transfer ended as expected and the money adds up, else 1."""
    return run(DEMO)
