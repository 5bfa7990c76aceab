"""Asking over HTTP without trust in the answer's size: what is larger than it can be is not read to its end."""

from __future__ import annotations

from typing import Any

import httpx

#: No answer of a service is larger: a thousand rows are a megabyte, and the largest message, escaped, is a few.
LARGEST_ANSWER = 16 * 1024 * 1024


class AnswerTooLargeError(httpx.TransportError):
    """An answer is larger than it is read; the text says how large it may be."""


class BoundedClient(httpx.AsyncClient):
    """A client that reads no answer beyond so many bytes. httpx has no limit of its own.

    It asks for answers as they are: a compressed one could be a thousand times as large as what comes over the wire.
    """

    def __init__(self, **options: Any) -> None:
        # Services are asked directly: a proxy that the environment names does not know this network.
        super().__init__(trust_env=False, **options)
        self.headers["Accept-Encoding"] = "identity"

    async def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:
        """Return the answer, which is read whole.

        Raises:
            AnswerTooLargeError: it is larger than `LARGEST_ANSWER`, or compressed.
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
    content, too_large = bytearray(), f"its answer is larger than {LARGEST_ANSWER:,} bytes, the most that is read"
    declared = response.headers.get("content-length", "")
    if declared.isdecimal() and (len(declared) > 18 or int(declared) > LARGEST_ANSWER):
        raise AnswerTooLargeError(too_large)
    async for chunk in response.aiter_raw():
        content += chunk
        if len(content) > LARGEST_ANSWER:
            raise AnswerTooLargeError(too_large)
    return bytes(content)
