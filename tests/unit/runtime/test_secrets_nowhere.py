"""No part and no form of a secret in an event appears in the output of the toolkit, whatever a step does with it.

Each way in which a step can leak a secret is tried against everything that the toolkit writes or shows: log lines, the
saga log, dead letters, outbox rows, the API's answers to the token, and spans.
"""

from __future__ import annotations

import html
import json
import logging
import reprlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from urllib.parse import quote, quote_plus

import asyncpg
import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic import BaseModel, SecretStr
from sqlalchemy import text
from sqlmodel.ext.asyncio.session import AsyncSession

from tests.example_sagas.library_branch import Branch
from tests.example_sagas.loans import NOON
from tests.unit.runtime.test_sensitive_values import lines as lines
from toolkit import Event, Participant, Refusal, Retry, RetryPolicy, Saga, SagaId, Sensitive, Service
from toolkit.api import Access, ApiContext, api_routes, application
from toolkit.clock import SystemClock
from toolkit.configuration.tokens import TokenDigest
from toolkit.declaration.contract import Contract
from toolkit.messaging.decoding import Decoder
from toolkit.messaging.envelope import Envelope
from toolkit.observability.broker_attributes import Broker
from toolkit.observability.logs import QUIET
from toolkit.observability.trace_export import provider_for
from toolkit.observability.tracing import Tracing
from toolkit.persistence import dead_letter_queries, saga_log_queries
from toolkit.persistence.database import Database
from toolkit.testing import ManualClock

#: The patient's name, with characters that some format escapes; `TRACES` are the parts that no text may contain.
NAME = 'Zephyrine O\'Quagga "Zé" <& Söhne>'
NOTE = "quagga-note " + "Zephyrine was seen here and there by the zebra. " * 8
TOKEN = "the-token-of-this-test-is-a-long-one"
TRACES = (
    "zephyr", "quagga", "hne&gt;", "%20%22z", "1815-12", "1815, 12", "98765.4", "98,765", "plague", "qv9x7",
    "cXVhZ2dh".lower(), "717561676761",
)  # fmt: skip


class Illness(Enum):
    PLAGUE = "QV9X7"


class Doctor(BaseModel):
    name: str


class PatientCame(Event, owner="client"):
    visit_id: SagaId
    way: str
    name: Annotated[str, Sensitive]
    note: Annotated[str, Sensitive]
    born: Annotated[date, Sensitive]
    bill: Annotated[Decimal, Sensitive]
    illness: Annotated[Illness, Sensitive]
    scan: Annotated[bytes, Sensitive]
    doctors: list[Annotated[Doctor, Sensitive]]


class PatientSeen(Event, owner="ward", optional=True):
    visit_id: SagaId


class PatientTurnedAway(Refusal, owner="ward", optional=True):
    visit_id: SagaId


BODY = {
    "visit_id": "visit-1", "name": NAME, "note": NOTE, "born": "1815-12-10", "bill": "98765.43",
    "illness": "QV9X7", "scan": "quagga", "doctors": [{"name": "Quagga Junior"}],
}  # fmt: skip
VISIT = Saga(
    name="visit", id_field="visit_id", starts_with=PatientCame, completes_with=PatientSeen, fails_with=PatientTurnedAway
)


class Number(BaseModel):
    number: int


def _with_note(event: PatientCame) -> Exception:
    error = RuntimeError("no bed")
    error.add_note(f"for {event.name}")
    return error


def _caused(event: PatientCame) -> Exception:
    try:
        raise KeyError(event.name)
    except KeyError as error:
        caused = RuntimeError("no bed")
        caused.__cause__ = error
        return caused


def _validation(event: PatientCame) -> Exception:
    try:
        Number.model_validate({"number": event.note})
    except ValueError as error:
        return error
    raise AssertionError


#: The errors that a step raises, by name.
RAISED: dict[str, Callable[[PatientCame], Exception]] = {
    "value": lambda event: ValueError(event.name),
    "key": lambda event: KeyError(event.name),
    "arguments": lambda event: RuntimeError("no bed", event.name, event.bill, event.born),
    "the event": lambda event: RuntimeError(repr(event)),
    "the event's text": lambda event: RuntimeError(f"{event}"),
    "its fields": lambda event: RuntimeError(event.model_dump()),
    "its JSON": lambda event: RuntimeError(event.model_dump_json()),
    "a nested model": lambda event: RuntimeError(repr(event.doctors)),
    "date": lambda event: RuntimeError(f"{event.born!r} or {event.born} is no birthday"),
    "decimal": lambda event: RuntimeError(f"{event.bill!r}, {event.bill} or {event.bill:,} is too much"),
    "enumeration": lambda event: RuntimeError(f"{event.illness!r}, {event.illness}, {event.illness.value}"),
    "bytes": lambda event: RuntimeError(event.scan, event.scan.hex(), event.name.encode()),
    "urlencoded": lambda event: RuntimeError(f"/find?name={quote(event.name)}&q={quote_plus(event.name)}"),
    "JSON-escaped": lambda event: RuntimeError(json.dumps({"name": event.name})),
    "HTML": lambda event: RuntimeError(html.escape(event.name)),
    "capitals": lambda event: RuntimeError(event.name.upper()),
    "cut": lambda event: RuntimeError(f"no bed for {event.name[:12]}"),
    "cut with dots": lambda event: RuntimeError(f"no bed for {event.name[:6]}…"),
    "cut in the middle": lambda event: RuntimeError(reprlib.repr(event.note)),
    "cut by the log": lambda event: RuntimeError("x" * 470 + event.note),
    "the end": lambda event: RuntimeError(f"no bed for {event.name[4:]}"),
    "over lines": lambda event: RuntimeError(f"no bed\nfor {event.name}\n"),
    "note": _with_note,
    "cause": _caused,
    "group": lambda event: ExceptionGroup("no beds", [ValueError(event.name), KeyError(event.note)]),
    "validation": _validation,
    "retry": lambda event: Retry(f"no bed for {event.name}"),
    "unwrapped secret": lambda event: RuntimeError(SecretStr(event.name).get_secret_value()),
}

#: Statements of a step that the database refuses, by name.
EXECUTED = {
    "unique": "INSERT INTO beds VALUES (:name, :note, 1); ",
    "check": "INSERT INTO beds VALUES (:note, :name, -1)",
    "not null": "INSERT INTO beds VALUES (:name, NULL, 1)",
    "cast": "INSERT INTO beds VALUES (:name, :note, CAST(CAST(:name AS TEXT) AS INTEGER) / 0)",
    "argument": "INSERT INTO beds VALUES (:name, :note, :number)",
    "literal": f"SELECT nothing FROM beds WHERE name = '{NOTE}'",
}


async def _execute(way: str, event: PatientCame, session: AsyncSession) -> None:
    facts: dict[str, Any] = {"name": event.name, "note": event.note, "number": event.name}
    statement = EXECUTED[way]
    given = {name: value for name, value in facts.items() if f":{name}" in statement}
    connection = await session.connection()
    for _ in range(2):
        await connection.execute(text(statement.rstrip("; ")), given)


async def _past_sqlalchemy(event: PatientCame, session: AsyncSession) -> None:
    raw = await (await session.connection()).get_raw_connection()
    driver: Any = raw.driver_connection
    if isinstance(driver, asyncpg.Connection):
        await driver.execute("INSERT INTO beds VALUES ($1, NULL, 1)", event.name)
    await driver.execute("INSERT INTO beds VALUES (?, NULL, 1)", (event.name,))


def ward(*, refusable: bool) -> Service:
    """Return a service whose step leaks its whole event, in the way that the event names."""
    participant = Participant("ward", saga=VISIT, retry=RetryPolicy(attempts=1))

    async def act(event: PatientCame, session: AsyncSession) -> Any:
        if event.way == "refusal":
            reason = f"no {event.name[:20]}, {event.illness} {event.born!r}"
            return PatientTurnedAway(visit_id=event.visit_id, reason=reason)
        if event.way == "own log":
            raise RuntimeError("no bed")
        if event.way == "past SQLAlchemy":
            await _past_sqlalchemy(event, session)
        if event.way in EXECUTED:
            await _execute(event.way, event, session)
        raise RAISED[event.way](event)

    async def see_patient(event: PatientCame, session: AsyncSession) -> PatientSeen | PatientTurnedAway:
        return await act(event, session)

    async def surely_see_patient(event: PatientCame, session: AsyncSession) -> PatientSeen:
        return await act(event, session)

    participant.step()(see_patient if refusable else surely_see_patient)
    return Service(name="ward", participants=[participant])


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(spans: InMemorySpanExporter) -> Iterator[Tracing]:
    provider = provider_for("ward")
    provider.add_span_processor(SimpleSpanProcessor(spans))
    yield Tracing(provider, Broker())
    provider.shutdown()


@pytest.fixture
async def beds(database: Database) -> AsyncIterator[Database]:
    """A database with a table of many constraints."""
    async with database.engine.begin() as connection:
        beds = "CREATE TABLE beds (name TEXT PRIMARY KEY, note TEXT NOT NULL, number INTEGER CHECK (number > 0))"
        await connection.execute(text(beds))
    yield database
    async with database.engine.begin() as connection:
        await connection.execute(text("DROP TABLE beds"))


async def everything_shown(service: Service, database: Database, spans: InMemorySpanExporter) -> dict[str, str]:
    """Return everything that is shown of the visit, by place."""
    found = {"spans": "".join(span.to_json() for span in spans.get_finished_spans())}
    async with database.reading() as connection:
        found["saga log"] = repr(await saga_log_queries.timeline(connection, "visit-1"))
        dead_letters = await dead_letter_queries.listed(connection)
        found["dead letters"] = repr([replace(each, body="") for each in dead_letters])

    async def readiness() -> dict[str, bool]:
        return {"broker": True, "database": True, "relay": True}

    site = ApiContext(
        service=service,
        contract=Contract.of(service),
        database=database,
        readiness=readiness,
        queue="saga.ward",
        clock=SystemClock(),
    )
    api = application(api_routes(site, Access("ward", token=TokenDigest.of(TOKEN))), names=("ward",))
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(api), base_url="http://ward", headers=headers) as client:
        places = ["/sagas", "/sagas/visit-1", "/log", "/dead-letters", "/outbox", "/attention", "/metrics", "/audit"]
        for place in (*places, *(f"/dead-letters/{each.id}" for each in dead_letters)):
            answer = await client.get(place)
            found[place] = answer.text if answer.status_code != 404 else ""
    return found


def assert_nothing_in(found: dict[str, str]) -> None:
    """Fail with the places that contain a trace, and the text around it."""
    leaks = [
        f"{place}: …{shown[max(at - 60, 0) : at + 60]}…"
        for place, shown in found.items()
        for trace in TRACES
        if (at := shown.lower().find(trace)) >= 0
    ]
    assert not leaks, "\n".join(leaks)


#: Each way ends in a dead letter with its traceback; those that other code carries to a refusal's reason, also there.
WAYS = [(way, False) for way in (*RAISED, *EXECUTED, "past SQLAlchemy")]
REFUSING = [
    (way, True) for way in ("value", "cut with dots", "cut by the log", "enumeration", "retry", "unique", "refusal")
]


@pytest.mark.parametrize(("way", "refusable"), [*WAYS, *REFUSING])
async def test_no_form_of_a_secret_leaks_anywhere(beds, tracing, spans, lines, caplog, way, refusable):
    service = ward(refusable=refusable)
    branch = Branch(service, beds, resources={}, clock=ManualClock(NOON), tracing=tracing)
    envelope = Envelope(
        event_id="event-1", event_type="PatientCame", version=1, saga_id="visit-1", saga_type="visit",
        occurred_at=datetime.now(UTC),
    )  # fmt: skip
    wire = envelope.wrap(json.dumps(BODY | {"way": way}).encode(), PatientCame)
    message = Decoder(service.consumed(), service.sagas, max_body=100_000).receive(wire, SystemClock())
    for library, least in QUIET.items():  # as a service configures it, at any level of its own
        caplog.set_level(least, logger=library)
    with caplog.at_level(logging.DEBUG):
        await branch.executor.execute([message])

    found = await everything_shown(service, beds, spans)
    assert "visit-1" in found["/sagas/visit-1"]
    assert "visit-1" in lines.getvalue()
    assert_nothing_in(found | {"log lines": lines.getvalue(), "other log lines": caplog.text})
