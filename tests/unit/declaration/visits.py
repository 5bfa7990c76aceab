"""A visit to a restaurant: the events, the saga and two compensations of tests that declare steps."""

from __future__ import annotations

from toolkit import Event, Refusal, Saga, SagaId


class TableWanted(Event, owner="guest"):
    visit_id: SagaId


class TableKept(Event, owner="waiter"):
    visit_id: SagaId
    table: int = 0


class TableRefused(Refusal, owner="waiter"):
    visit_id: SagaId


class TableRefusedTo(Refusal, owner="waiter"):
    visit_id: SagaId
    guest: str


class TableFreed(Event, owner="waiter"):
    visit_id: SagaId
    reason: str = ""


class TableFreedBy(Event, owner="waiter"):
    visit_id: SagaId
    waiter: str


class GuestLeft(Event, owner="waiter"):
    visit_id: SagaId


class DishFailed(Refusal, owner="kitchen"):
    visit_id: SagaId


class Rumour(Event):
    visit_id: SagaId


class Menu:
    """A resource that a service may provide."""


visit_saga = Saga(
    name="visit", id_field="visit_id", starts_with=TableWanted, completes_with=TableKept, fails_with=GuestLeft
)


async def free_table(event: DishFailed, original: TableKept) -> TableFreed: ...


async def free_table_if_kept(event: DishFailed, original: TableKept | None) -> TableFreed: ...
