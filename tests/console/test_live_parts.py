"""Pages refresh their live part alone."""

from __future__ import annotations

import httpx


async def test_an_unchanged_live_part_is_not_sent_again(local: httpx.AsyncClient):
    first = await local.get("/choreography?part=live")

    again = await local.get("/choreography?part=live", headers={"If-None-Match": first.headers["etag"]})

    assert "<html" not in first.text
    assert (again.status_code, again.content) == (204, b"")
