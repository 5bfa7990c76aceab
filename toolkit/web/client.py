"""An HTTP client that does not trust an answer's size: it stops reading at a limit."""

from __future__ import annotations

from typing import Any

import httpx

#: The most bytes of an answer: a thousand rows take one megabyte, and the largest message, escaped, a few.
LARGEST_ANSWER = 16 * 1024 * 1024


class AnswerTooLargeError(httpx.TransportError):
    """An answer exceeds the limit; the text names the limit."""


class BoundedClient(httpx.AsyncClient):
    """A client that limits the size of answers; httpx has no such limit.

    It requests uncompressed answers: a compressed one could be a thousand times as large as its bytes on the wire.
    """

    def __init__(self, **options: Any) -> None:
        # Requests go to services directly: a proxy that the environment names may not reach this network.
        super().__init__(trust_env=False, **options)
        self.headers["Accept-Encoding"] = "identity"

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Return the answer after reading it completely.

        Raises:
            AnswerTooLargeError: the answer is larger than `LARGEST_ANSWER`, or compressed.
        """
        response = await super().send(request, stream=True, **options)
        try:
            content = await _content(response)
        finally:
            await response.aclose()
        headers = [pair for pair in response.headers.raw if pair[0].lower() != b"transfer-encoding"]
        return httpx.Response(response.status_code, headers=headers, content=content, request=request)


async def _content(response: httpx.Response) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise AnswerTooLargeError(f"its answer is compressed, and so may be larger than {LARGEST_ANSWER:,} bytes")
    content, too_large = bytearray(), f"its answer is larger than the limit of {LARGEST_ANSWER:,} bytes"
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > LARGEST_ANSWER):
        raise AnswerTooLargeError(too_large)
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise AnswerTooLargeError(too_large)
    return bytes(content)
