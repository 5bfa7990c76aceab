"""A saga for tests, shaped like a diamond: a venue, then a caterer and a speaker at once, then the programme.

The programme joins both; the venue's compensation does, too: it is given back once the caterer and the speaker are
both refused or cancelled. The venue and the programme may be external.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from tests.example_sagas.travel import QUICK, Script, effects_table, write
from toolkit import Event, IdempotencyKey, Participant, Refusal, Saga, SagaId, Service, Settings

#: The steps, but for the failed end.
STEPS = ("reserve_venue", "book_caterer", "book_speaker", "print_programme")
PATIENCE = timedelta(minutes=10)


class ConferencePlanned(Event, owner="host"):
    conference_id: SagaId


class VenueReserved(Event, owner="venue"):
    conference_id: SagaId
    hall: str = ""


class VenueTaken(Refusal, owner="venue"):
    conference_id: SagaId


class VenueReleased(Event, owner="venue"):
    conference_id: SagaId


class CatererBooked(Event, owner="caterer"):
    conference_id: SagaId


class CatererRefused(Refusal, owner="caterer"):
    conference_id: SagaId


class CatererCancelled(Event, owner="caterer"):
    conference_id: SagaId


class SpeakerBooked(Event, owner="speaker"):
    conference_id: SagaId


class SpeakerRefused(Refusal, owner="speaker"):
    conference_id: SagaId


class SpeakerCancelled(Event, owner="speaker"):
    conference_id: SagaId


class ProgrammePrinted(Event, owner="office", optional=True):
    conference_id: SagaId


class ProgrammeRefused(Refusal, owner="office"):
    conference_id: SagaId


class ConferenceCancelled(Event, owner="office", optional=True):
    conference_id: SagaId


conference_saga = Saga(
    name="conference", id_field="conference_id", starts_with=ConferencePlanned, completes_with=ProgrammePrinted,
    fails_with=ConferenceCancelled,
)  # fmt: skip


def services(script: Script, *, is_external: bool = False) -> list[Service]:
    """Return the four services, which follow this script."""

    @asynccontextmanager
    async def the_script(_: Settings) -> AsyncIterator[Script]:
        yield script

    parts = {
        "venue": _venue(is_external=is_external),
        "caterer": _caterer(),
        "speaker": _speaker(),
        "office": _office(is_external=is_external),
    }
    return [
        Service(name=name, participants=[participant], tables=effects.metadata, provides={Script: the_script})
        for name, (participant, effects) in parts.items()
    ]


def _venue(*, is_external: bool) -> tuple[Participant, Table]:
    venue = Participant("venue", saga=conference_saga, retry=QUICK, external=is_external)
    effects = effects_table()

    @venue.step(timeout=PATIENCE)
    async def reserve_venue(
        event: ConferencePlanned, key: IdempotencyKey, session: AsyncSession, script: Script
    ) -> VenueReserved | VenueTaken:
        is_refused = await script.play("reserve_venue", event.conference_id)
        if key in script.voided or is_refused:
            return VenueTaken(conference_id=event.conference_id, reason="no hall is free")
        await write(session, effects, event.conference_id, "venue reserved")
        return VenueReserved(conference_id=event.conference_id, hall="A")

    @venue.compensation(of=reserve_venue)
    async def release_venue(
        original: VenueReserved | None,
        caterer: CatererRefused | CatererCancelled,
        speaker: SpeakerRefused | SpeakerCancelled,
        key: IdempotencyKey,
        session: AsyncSession,
        script: Script,
    ) -> VenueReleased:
        await script.play("release_venue", caterer.conference_id)
        script.voided.add(key)
        what = f"released after {type(caterer).__name__} and {type(speaker).__name__}" if original else "voided"
        await write(session, effects, speaker.conference_id, f"venue {what}")
        return VenueReleased(conference_id=caterer.conference_id)

    return venue, effects


def _caterer() -> tuple[Participant, Table]:
    caterer, effects = Participant("caterer", saga=conference_saga, retry=QUICK), effects_table()

    @caterer.step(timeout=PATIENCE)
    async def book_caterer(
        event: VenueReserved, session: AsyncSession, script: Script
    ) -> CatererBooked | CatererRefused:
        await write(session, effects, event.conference_id, "caterer booked")
        if await script.play("book_caterer", event.conference_id):
            return CatererRefused(conference_id=event.conference_id, reason="fully booked")
        return CatererBooked(conference_id=event.conference_id)

    @caterer.compensation(of=book_caterer)
    async def cancel_caterer(
        event: SpeakerRefused | ProgrammeRefused, session: AsyncSession, script: Script
    ) -> CatererCancelled:
        await script.play("cancel_caterer", event.conference_id)
        await write(session, effects, event.conference_id, "caterer cancelled")
        return CatererCancelled(conference_id=event.conference_id)

    return caterer, effects


def _speaker() -> tuple[Participant, Table]:
    speaker, effects = Participant("speaker", saga=conference_saga, retry=QUICK), effects_table()

    @speaker.step(timeout=PATIENCE)
    async def book_speaker(
        event: VenueReserved, session: AsyncSession, script: Script
    ) -> SpeakerBooked | SpeakerRefused:
        await write(session, effects, event.conference_id, "speaker booked")
        if await script.play("book_speaker", event.conference_id):
            return SpeakerRefused(conference_id=event.conference_id, reason="abroad")
        return SpeakerBooked(conference_id=event.conference_id)

    @speaker.compensation(of=book_speaker)
    async def cancel_speaker(
        event: CatererRefused | ProgrammeRefused, session: AsyncSession, script: Script
    ) -> SpeakerCancelled:
        await script.play("cancel_speaker", event.conference_id)
        await write(session, effects, event.conference_id, "speaker cancelled")
        return SpeakerCancelled(conference_id=event.conference_id)

    return speaker, effects


def _office(*, is_external: bool) -> tuple[Participant, Table]:
    office, effects = Participant("office", saga=conference_saga, retry=QUICK), effects_table()

    @office.step(timeout=PATIENCE, external=is_external)
    async def print_programme(
        session: AsyncSession, speaker: SpeakerBooked, caterer: CatererBooked, script: Script
    ) -> ProgrammePrinted | ProgrammeRefused:
        is_refused = await script.play("print_programme", speaker.conference_id)
        await write(session, effects, caterer.conference_id, "programme printed")
        if is_refused:
            return ProgrammeRefused(conference_id=speaker.conference_id, reason="out of paper")
        return ProgrammePrinted(conference_id=speaker.conference_id)

    @office.step()
    async def tell_all(event: VenueTaken | VenueReleased, session: AsyncSession, script: Script) -> ConferenceCancelled:
        await script.play("tell_all", event.conference_id)
        await write(session, effects, event.conference_id, "all told")
        return ConferenceCancelled(conference_id=event.conference_id)

    return office, effects
