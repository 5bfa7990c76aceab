"""A coordinator's command is read by its header, under the step's own key, from the named coordinator alone."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.example_sagas.loans import BookLent, BookWanted, loan_saga
from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services
from tests.example_sagas.travel import RoomBooked, Script, TripRequested
from toolkit import Participant, Service
from toolkit.declaration.contract import Contract
from toolkit.declaration.events import SagaEnded
from toolkit.errors import UnreadableError
from toolkit.messaging.addresses import address_of, consumed_keys, reply_of
from toolkit.messaging.envelope import Envelope, WireMessage
from toolkit.messaging.rights import rights_of
from toolkit.messaging.senders import Senders
from toolkit.protocol.commands import Address, Outcome, Reply, Verb

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ASK = Address(COORDINATOR, Verb.ASK, "book_room")
HOTEL, FLIGHT, DESK, COORDINATING = orchestrated_services(Script())
SENDERS = Senders(exchange="saga", logins={COORDINATOR: ["plan"]}, coordinators={"book_room": COORDINATOR})


def wire(address: Address | None = ASK, **facts: object) -> WireMessage:
    """Return the starting event as the coordinator sends it, with these facts changed."""
    trip = TripRequested(trip_id="trip-1")
    envelope = Envelope.of(TripRequested, saga=("trip", "trip-1"), occurred_at=NOW, address=address)
    found = envelope.carry(trip)
    found.headers = dict(found.headers) | {"sent-by": "plan"}
    for name, value in facts.items():
        setattr(found, name, value)
    return found


def test_a_command_has_its_steps_key_and_header() -> None:
    sent = wire()

    assert sent.routing_key == f"{COORDINATOR}.Ask.book_room"
    assert sent.headers["ask"] == "book_room"
    assert address_of(sent) == ASK
    SENDERS.check(TripRequested, sent, ASK)


def test_a_command_under_another_key_is_refused() -> None:
    for key in ("agency.TripRequested", f"{COORDINATOR}.Undo.book_room", f"{COORDINATOR}.Ask.book_flight"):
        with pytest.raises(UnreadableError, match="wrong routing key"):
            address_of(wire(routing_key=key))


@pytest.mark.parametrize(
    "address", [Address("agency", Verb.ASK, "book_room"), Address(COORDINATOR, Verb.ASK, "book_flight")]
)
def test_only_the_named_coordinator_asks_a_step(address: Address) -> None:
    with pytest.raises(UnreadableError, match="wrong coordinator"):
        SENDERS.check(TripRequested, wire(address), address)


def test_a_command_from_another_login_is_refused() -> None:
    with pytest.raises(UnreadableError, match="wrong sender"):
        SENDERS.check(TripRequested, wire(headers={"ask": "book_room", "sent-by": "hotel"}), ASK)


def test_a_command_ends_no_saga() -> None:
    with pytest.raises(UnreadableError, match="wrong routing key"):
        SENDERS.check(SagaEnded, wire(), ASK)


def test_a_reply_names_its_step_and_outcome() -> None:
    envelope = Envelope.of(
        RoomBooked, saga=("trip", "trip-1"), occurred_at=NOW, reply=Reply("book_room", Outcome.COMPLETED)
    )

    assert reply_of(envelope.headers()) == Reply("book_room", Outcome.COMPLETED)
    with pytest.raises(UnreadableError, match="outcome is 'done', not one of completed, final, refused, undone"):
        reply_of({"reply": "book_room", "outcome": "done"})


def test_an_asked_service_is_bound_to_commands_alone() -> None:
    asked = {f"{COORDINATOR}.{verb}.book_room" for verb in ("Ask", "Undo")}

    assert consumed_keys(HOTEL, {"trip": COORDINATOR}) == asked
    assert set(Contract.of(HOTEL, asked_by={"*": COORDINATOR}).bound_keys()) == asked
    assert "agency.TripRequested" in consumed_keys(HOTEL, {"another": COORDINATOR})


def test_the_coordinator_is_bound_to_all_events() -> None:
    keys = consumed_keys(COORDINATING, {})

    assert {"agency.TripRequested", "hotel.RoomBooked", "desk.TripFailed"} <= keys
    assert set(Contract.of(COORDINATING).bound_keys()) == keys


def test_a_coordinator_is_not_bound_to_its_own_steps_events() -> None:
    library = Participant("library", saga=loan_saga)

    async def lend_book(event: BookWanted) -> BookLent: ...  # type: ignore[empty-body]

    library.step()(lend_book)
    both = Service(name="library", participants=[library], orchestrators=list(COORDINATING.orchestrators))

    keys = consumed_keys(both, {})

    assert "reader.BookWanted" in keys
    assert "library.BookLent" not in keys
    assert set(Contract.of(both).bound_keys()) == keys
    assert {each.routing_key for each in Contract.of(both).consumed()} == keys


def test_only_the_coordinator_may_write_its_commands() -> None:
    contracts = [Contract.of(service, asked_by={"*": COORDINATOR}) for service in (HOTEL, FLIGHT, DESK, COORDINATING)]

    rights = {each.login: each.topics["saga"] for each in rights_of(contracts, "saga", {})}

    assert [login for login, keys in rights.items() if f"{COORDINATOR}.*" in keys.write] == [COORDINATOR]
    assert f"{COORDINATOR}.Ask.book_room" in rights["hotel"].read
    assert "agency.TripRequested" not in rights["hotel"].read
    assert "saga.SagaEnded" in rights[COORDINATOR].write


def test_an_application_may_write_what_it_starts() -> None:
    shop = Contract.of(Service(name="shop", starts=[loan_saga]))

    (rights,) = [each for each in rights_of([shop], "saga", {}) if each.login == "shop"]

    assert "reader.*" in rights.topics["saga"].write
