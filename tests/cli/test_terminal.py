"""What people see on a terminal as narrow as terminals are: whole ids, and no line that is wrapped."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import subprocess
import termios

import pytest

from tests.cli.conftest import command

WIDTH = 80
ORDER = "01a1fed3-c803-72e6-8392-b3e71d84f438"


@pytest.fixture
def order(saga_process, data_dir):
    """An order whose card was declined."""
    chosen = ("--set", f"order_id={ORDER}", "--set", "payment_method=card_declined")
    saga_process("trigger", "OrderCreated", *chosen, "--wait", "20", SAGA_BROKER_URL="embedded")
    return ORDER


@pytest.mark.parametrize("arguments", [("log", "inventory"), ("ls",), ("trace", ORDER)])
def test_narrow_terminal_shows_whole_ids(order, arguments):
    lines = on_terminal(*arguments)

    assert any(order in line for line in lines)
    assert max(map(len, lines)) <= WIDTH
    assert any("completed" in line or "Failed" in line for line in lines)


def test_the_figures_fit_on_a_narrow_terminal(order):
    heading, *lines = on_terminal("stats")

    assert heading.split() == [
        "service", "pending", "compensating", "overdue", "dead", "letters", "outbox", "oldest"
    ]  # fmt: skip
    assert len(lines) == 4
    assert max(map(len, (heading, *lines))) <= WIDTH


def test_terminal_log_is_grouped_by_saga(order):
    lines = on_terminal("log", "inventory")

    assert lines[0].startswith(f"saga {order} (order), ")
    assert [line.split()[2:4] for line in lines[2:4]] == [
        ["reserve_inventory", "completed"],
        ["reserve_inventory", "compensated"],
    ]


def on_terminal(*arguments):
    """Run a verb upon a terminal without colours, and return the lines that it shows there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
    process = subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=subprocess.DEVNULL,
        env=os.environ | {"TERM": "dumb", "NO_COLOR": "1"},
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while more := os.read(ours, 65_536):
            shown += more
    except OSError:  # how a terminal says that nobody writes to it any more
        os.close(ours)
    assert process.wait(30) == 0
    return [line.rstrip() for line in shown.decode().splitlines()]
