"""What answers more than a service can is not read to its end, and the command says which it was."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from toolkit.web.client import LARGEST_ANSWER

#: What the server would send.
LARGE = 400_000_000
PART = b" " * 1_000_000


class Talker(BaseHTTPRequestHandler):
    """Answers far too much, in one of three ways."""

    protocol_version = "HTTP/1.1"
    way: ClassVar[str]
    sent: ClassVar[int]

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        if self.way == "declared":
            self.send_header("Content-Length", str(LARGE))
        elif self.way == "chunked":
            self.send_header("Transfer-Encoding", "chunked")
        else:
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(SMALL)))
        self.end_headers()
        with suppress(OSError):  # the client has had enough
            self._send()

    def _send(self) -> None:
        if self.way == "compressed":
            self.wfile.write(SMALL)
            return
        for _ in range(LARGE // len(PART)):
            self.wfile.write(PART if self.way == "declared" else b"%x\r\n%s\r\n" % (len(PART), PART))
            type(self).sent += len(PART)

    def log_message(self, *_: Any) -> None:
        pass


#: Some kilobytes that would be many megabytes.
SMALL = gzip.compress(PART * 100)


@pytest.fixture(params=["declared", "chunked", "compressed"])
def talker(request: pytest.FixtureRequest) -> Iterator[str]:
    """The address of a server that answers too much."""
    Talker.way, Talker.sent = request.param, 0
    with ThreadingHTTPServer(("127.0.0.1", 0), Talker) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("verb", [("ls",), ("dead-letters", "ls", "payment"), ("doctor",)], ids=" ".join)
def test_too_large_answer_is_not_read(saga, monkeypatch, talker, verb):
    monkeypatch.setenv("SAGA_SERVICES", f"payment={talker}")

    result = saga(*verb)

    told = " ".join((result.stdout + result.stderr).split())
    assert f"{LARGEST_ANSWER:,} bytes" in told
    assert "payment" in told
    assert Talker.sent < LARGE / 4  # the doctor asks more than once
