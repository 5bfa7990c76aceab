"""Counts a process's calls to send, its round trips to the database, and its turns of the event loop.

It counts between two signals, for a load of its own; no counter runs while it is timed. A busy machine makes larger
batches, and so less of each for a saga.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

#: The variable that names the file for the counts.
COUNTS = "BENCHMARK_COUNTS"
#: What begins and ends a transaction as a simple query of PostgreSQL's protocol.
_BEGIN, _END = ("BEGIN",), ("COMMIT", "ROLLBACK")


@dataclass(slots=True)
class Counts:
    """What processes did.

    - `sends`: calls to send, on any socket.
    - `turns`: turns of the event loop.
    - `round_trips`: sends to PostgreSQL; each one waits for the response.
    - `transactions`: on PostgreSQL; a statement outside of any is one.
    """

    sends: float = 0
    turns: float = 0
    round_trips: float = 0
    transactions: float = 0

    def __add__(self, other: Counts) -> Counts:
        """Return the sums of both."""
        return Counts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(Counts)))

    def each(self, number: int) -> Counts:
        """Return the counts divided by a number, of sagas for example."""
        return Counts(*(getattr(self, each.name) / number for each in fields(Counts)))

    @classmethod
    def read(cls, file: Path) -> Self:
        """Read what a process has written."""
        return cls(**json.loads(file.read_text()))


class Counters:
    """The counters of this process; `ports` are those of its databases."""

    def __init__(self, file: str, ports: Iterable[int]) -> None:
        self._file, self._ports = Path(file), frozenset(ports)
        self._counts = Counts()
        self._databases: dict[socket.socket, bool] = {}
        self._in_transaction: Counter[socket.socket] = Counter()
        self._undo: list[Callable[[], None]] = []

    def switch(self) -> None:
        """Begin to count; or stop, and write the counts."""
        if not self._undo:
            self._begin()
            return
        for undo in self._undo:
            undo()
        self._undo.clear()
        unfinished = self._file.with_suffix(".part")
        unfinished.write_text(json.dumps(asdict(self._counts)))
        unfinished.rename(self._file)

    def _begin(self) -> None:
        self._counts = Counts()
        loop = asyncio.get_running_loop()
        once = getattr(loop, "_run_once")  # noqa: B009 -- asyncio has no public hook for a turn

        def run_once() -> None:
            self._counts.turns += 1
            once()

        setattr(loop, "_run_once", run_once)  # noqa: B010
        self._undo.append(lambda: delattr(loop, "_run_once"))
        for name in ("send", "sendmsg"):
            self._count_calls(name)

    def _count_calls(self, name: str) -> None:
        original = getattr(socket.socket, name)

        def send(sender: socket.socket, data: Any, *others: Any) -> Any:
            self._sent(sender, bytes(data[:32]) if name == "send" else b"".join(data)[:32])
            return original(sender, data, *others)

        setattr(socket.socket, name, send)
        self._undo.append(lambda: setattr(socket.socket, name, original))

    def _sent(self, sender: socket.socket, begin: bytes) -> None:
        self._counts.sends += 1
        if not self._is_database(sender):
            return
        self._counts.round_trips += 1
        query = begin[5:].decode(errors="replace").upper() if begin[:1] == b"Q" else ""
        if query.startswith(_BEGIN):
            self._in_transaction[sender] = 1
        elif query.startswith(_END):
            self._in_transaction[sender] = 0
            self._counts.transactions += 1
        elif not self._in_transaction[sender]:
            self._counts.transactions += 1

    def _is_database(self, sender: socket.socket) -> bool:
        if sender not in self._databases:
            try:
                self._databases[sender] = sender.getpeername()[1] in self._ports
            except (OSError, IndexError, TypeError):
                self._databases[sender] = False
        return self._databases[sender]


def switch_on_signal(file: str, *, databases: Iterable[str]) -> None:
    """Switch this process's counters at each SIGUSR1."""
    ports = {urlsplit(url).port or 5432 for url in databases if url.startswith("postgresql")}
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, Counters(file, ports).switch)
