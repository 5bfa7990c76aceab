"""Addresses with invalid filters, places or ids are reported as such, and are no outage of a service."""

from __future__ import annotations

import html
import re

import httpx
import pytest

from tests.console.one_service import add_dead_letters
from toolkit.persistence.database import Database

#: No base64, no JSON, `{}`, a place without cursors, a place with an invalid time.
PLACES = ("%00", "x", "e30", "eyJiZWhpbmQiOm51bGx9", "eyJiZWhpbmQiOlsiMjAyNiIsMV0sIm9mIjp7fX0")


@pytest.mark.parametrize("place", PLACES)
async def test_an_invalid_place_in_a_list_is_refused(local: httpx.AsyncClient, place: str):
    assert (await local.get(f"/sagas?from={place}")).status_code == 400


@pytest.mark.parametrize("query", ["state=Nope", "attention=Nope", "age=soon", "age=-1s", "age=99999999d"])
async def test_an_invalid_filter_is_reported(local: httpx.AsyncClient, query: str):
    answer = await local.get(f"/sagas?{query}")

    assert answer.status_code == 400
    assert "Invalid filter" in answer.text


@pytest.mark.parametrize("saga_id", ["..", "a b", "%F0%9F%8D%B5", "x" * 300, "<b>"])
async def test_an_unknown_id_has_an_empty_page(local: httpx.AsyncClient, saga_id: str):
    assert (await local.get("/sagas", params={"q": saga_id})).status_code == 200
    if saga_id != "..":
        assert (await local.get(f"/sagas/{saga_id}")).status_code == 200


@pytest.mark.parametrize("query", ["q=%00", "step=%01", "type=%7F", "older_than=abc", "cursor=zzz"])
async def test_an_invalid_query_is_no_outage(local: httpx.AsyncClient, query: str):
    answer = await local.get(f"/sagas?{query}")

    assert answer.status_code == 400
    assert "Invalid filter" in answer.text
    assert "unreachable" not in answer.text
    if "=%" not in query:
        assert "the filters are q, state, step, attention, age, type, from" in answer.text


async def test_an_invalid_id_is_not_queried(local: httpx.AsyncClient):
    answer = await local.get("/sagas/%00")

    assert (answer.status_code, "Invalid id" in answer.text) == (400, True)


@pytest.mark.parametrize("saga_id", ["../../etc/passwd", "a/b", "a?b", "a#b", "a/"])
async def test_every_dead_letters_saga_has_a_page(local: httpx.AsyncClient, database: Database, saga_id: str):
    await add_dead_letters(database, "schema", saga_id=saga_id)
    listed = (await local.get("/attention/redrive?service=payment&reason_is=schema")).text
    (link,) = re.findall(r'href="(/sagas/[^"]+)"', listed)

    page = await local.get(link)
    (live,) = re.findall(r'hx-get="([^"]+)"', page.text)

    assert page.status_code == 200
    assert f"{saga_id}</span></h1>" in page.text
    assert "nothing to be done" in page.text
    assert "nothing to be done" in (await local.get(html.unescape(live))).text


@pytest.mark.parametrize("saga_id", ["order-of-nobody", "order-1"])
async def test_a_saga_without_entries_offers_no_actions(local: httpx.AsyncClient, database: Database, saga_id: str):
    await add_dead_letters(database, "schema")  # of order-1

    page = (await local.get(f"/sagas/{saga_id}?do=abort")).text

    assert "Actions" not in page
    assert "Abort this saga" not in page
