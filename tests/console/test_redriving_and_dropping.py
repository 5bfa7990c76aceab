"""Dead letters are redriven or dropped once, after a dry run, in the name of a person."""

from __future__ import annotations

from dataclasses import replace

import httpx

from tests.console.one_service import actors, add_dead_letters, form_token, redrive_or_drop, sign_in
from tests.eventually import eventually
from toolkit.ids import new_id
from toolkit.persistence import dead_letter_queries, dead_letters
from toolkit.persistence.database import Database
from toolkit.persistence.dead_letters import Selection


async def test_a_redrive_needs_a_selection_of_dead_letters(local: httpx.AsyncClient):
    token = await form_token(local)
    fields = {"token": token, "reason": "why", "service": "payment", "job": "j", "total": "1"}

    assert (await local.post("/attention/redrive", data=fields)).status_code == 400
    assert (await local.get("/attention/redrive?service=payment")).status_code == 400
    assert (await local.get("/attention/redrive?service=nobody&step=x")).status_code == 400


async def test_the_audit_records_the_name_of_the_session(remote: httpx.AsyncClient, database: Database):
    await add_dead_letters(database, "schema", "unknown event", "not JSON")
    await sign_in(remote, "Grace Hopper")
    form = await remote.get("/attention/redrive?service=payment&reason_is=schema")

    for name, reason_is in (("", "schema"), ("Ada", "unknown event"), ("", "not JSON")):
        await redrive_or_drop(remote, database, "redrive", reason_is, name=name)

    assert 'value="Grace Hopper"' in form.text
    assert await actors(database) == ["Grace Hopper (console)", "Ada (console)", "Ada (console)"]


async def test_messages_that_fail_again_are_counted(local: httpx.AsyncClient, database: Database):
    await add_dead_letters(database, "schema", "schema", "schema")
    async with database.reading() as connection:
        before = await dead_letters.choose(connection, Selection(), most=10, locked=False)
    job = await redrive_or_drop(local, database, "redrive", "schema")

    async with database.transaction() as session:  # as the service does with a message that is still invalid
        again = [replace(each, id=new_id()) for each in before[:2]]
        await dead_letters.add(await session.connection(), again)
    await add_dead_letters(database, "schema")  # another message

    async def is_shown() -> bool:
        return "2 failed again" in (await local.get(job)).text

    await eventually(is_shown, what="the count")


async def test_dead_letters_are_dropped_after_a_dry_run(local: httpx.AsyncClient, database: Database):
    await add_dead_letters(database, "schema", "schema", "not JSON")

    look = (await local.get("/attention/drop?service=payment&reason_is=schema")).text
    job = await redrive_or_drop(local, database, "drop", "schema")

    assert "would be dropped" in look
    assert "2</strong> of 2 dead letters would be dropped" in look
    assert "Done: 2 of 2 dead letters dropped" in (await local.get(job)).text
    assert await actors(database) == ["Ada (console)"] * 2
    async with database.reading() as connection:
        assert [row.reason for row in await dead_letter_queries.listed(connection)] == ["not JSON"]
    assert (await local.get("/attention/eat?service=payment&reason_is=schema")).status_code == 404
