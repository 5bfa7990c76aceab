"""Releases of one service follow each other while sagas are open, and lose nothing.

Each scenario restores the world: the current releases run, and all sagas have ended.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aio_pika

from tests.chaos.mix import gift
from tests.chaos.outcome import Outcome, Progress, wrong_ends
from tests.chaos.runs import prompt
from tests.chaos.world import Servers, World, world
from tests.end_to_end.placed_orders import orders
from tests.end_to_end.replica import Replica
from tests.eventually import eventually
from toolkit.configuration.settings import queue_name

#: How long the sagas of one scenario may take to their ends, in seconds.
_CONVERGES_WITHIN = 120.0
#: How long a process may take to start, or to end with an error, in seconds.
_STARTS_WITHIN = 60.0
#: After so many seconds a service asks for what was lost.
_MISSED_AFTER = 4.0
_SHOP = "tests.chaos.shop"


async def releases(servers: Servers, *, sagas: int, progress: Progress) -> Outcome:
    """Replace releases under load, and check after each."""
    began, found, wrong = time.monotonic(), {}, []
    before = {"shipping": f"{_SHOP}.releases:shipping_before"}
    async with world(servers, replicas=1, environment=prompt(_MISSED_AFTER), references=before) as here:
        for name, scenario in _SCENARIOS.items():
            since = time.monotonic()
            faults = await scenario(here, sagas) or await here.converged(within=_CONVERGES_WITHIN)
            wrong += [f"{name}: {each}" for each in [*faults, *wrong_ends(here, await here.ends())]]
            found[name] = round(time.monotonic() - since, 1)
            progress("releases", 1)
        figures: dict[str, object] = {"sagas": len(here.due), "seconds": found}
    return Outcome(run="releases", seed=0, figures=figures, violations=wrong, seconds=time.monotonic() - began)


async def _consumes_less(here: World, sagas: int) -> list[str]:
    """Roll to a release that no longer consumes an event, with both running for a while.

    An event on its way to the previous release may become a dead letter; later ones may not.
    """
    placing = asyncio.create_task(here.place(orders(sagas), rate=10, beside={gift: 1}))
    await eventually(lambda: _has_moved(here, "shipping"), what="sagas at shipping")
    here.fleet.references["shipping"] = f"{_SHOP}.apps:shipping"
    await here.fleet.start("shipping")
    code = await here.fleet.oldest("shipping").terminate()
    await placing
    await eventually(lambda: _is_unbound(here), within=_STARTS_WITHIN, every=0.5, what="the binding gone")
    if found := await here.converged(within=_CONVERGES_WITHIN):
        return found
    before = here.outdated
    await here.place(orders(sagas), rate=10, beside={gift: 1})
    found = await here.converged(within=_CONVERGES_WITHIN)
    found += [f"{here.outdated - before} dead letters of an event that is not bound"] if here.outdated > before else []
    return [*found, f"the previous release ended with {code}"] if code else found


async def _has_a_newer_version(here: World, sagas: int) -> list[str]:
    """Lose events of version 1, and roll to the release that emits version 2: nudges repeat version 1 unchanged."""
    await here.fleet.kill("shipping")
    await here.place(orders(sagas), rate=10, beside={gift: 1})
    await eventually(lambda: _are_packed(here), within=60, every=0.2, what="gifts on their way to shipping")
    await _purge(here, "shipping")
    await _replace(here, "inventory", f"{_SHOP}.releases:inventory_after")
    await here.fleet.start("shipping")
    if found := await here.converged(within=_CONVERGES_WITHIN):
        return found
    await _replace(here, "inventory", f"{_SHOP}.apps:inventory")
    return []


async def _renames_a_step(here: World, sagas: int) -> list[str]:
    """Start a release that has renamed a step of open sagas: it refuses to run, and nothing is lost."""
    await here.fleet.kill("notification")
    await here.place(orders(sagas), rate=10)
    await eventually(lambda: _are_shipped(here), within=60, every=0.2, what="all orders shipped")
    await here.fleet.oldest("shipping").terminate()
    here.fleet.references["shipping"] = f"{_SHOP}.releases:shipping_renamed"
    renamed = await here.fleet.launch("shipping")
    await eventually(lambda: _has_settled(renamed), within=_STARTS_WITHIN, every=0.2, what="the release ready or ended")
    here.fleet.references["shipping"] = f"{_SHOP}.apps:shipping"
    wrong = [] if renamed.process.returncode else ["the release that renamed create_shipment runs"]
    if renamed.process.returncode:
        here.fleet.replicas.remove(renamed)
        await here.fleet.start("shipping")
    await here.fleet.start("notification")
    return [*wrong, *(await here.converged(within=_CONVERGES_WITHIN) if wrong else [])]


async def _has_moved(here: World, name: str) -> bool:
    return bool((await here.rows(name, "SELECT count(*) AS entries FROM saga_log"))[0]["entries"])


async def _is_unbound(here: World) -> bool:
    """Whether shipping has unbound the event that its previous release consumed."""
    query = "SELECT count(*) AS gone FROM saga_bindings WHERE routing_key = 'inventory.GiftUnpacked' AND unbound = 1"
    return bool((await here.rows("shipping", query))[0]["gone"])


async def _are_packed(here: World) -> bool:
    """Whether each gift has been packed, and all outboxes are empty."""
    query = "SELECT count(DISTINCT saga_id) AS packed FROM saga_log WHERE step = 'pack_gift'"
    packed: int = (await here.rows("inventory", query))[0]["packed"]
    return packed == sum(saga_type == "gift" for saga_type, _ in here.due) and await here.fleet.is_at_rest()


async def _are_shipped(here: World) -> bool:
    """Whether shipping has received each order that no earlier step refuses."""
    query = "SELECT count(DISTINCT saga_id) AS shipped FROM saga_log WHERE step = 'create_shipment'"
    shipped: int = (await here.rows("shipping", query))[0]["shipped"]
    return shipped == sum(order.payment_method == "card_ok" for order in here.placed)


async def _has_settled(replica: Replica) -> bool:
    """Whether a process has ended, or is ready."""
    return replica.process.returncode is not None or await replica.is_ready()


async def _replace(here: World, name: str, reference: str) -> None:
    """Stop the service's process, and start one of another release."""
    await here.fleet.oldest(name).terminate()
    here.fleet.references[name] = reference
    await here.fleet.start(name)


async def _purge(here: World, name: str) -> None:
    """Delete the messages in a service's queue."""
    settings = here.fleet.settings
    connection = await aio_pika.connect(settings.broker_url)
    async with connection, connection.channel() as channel:
        await (await channel.get_queue(queue_name(settings, name))).purge()


_SCENARIOS: dict[str, Callable[[World, int], Awaitable[list[str]]]] = {
    "an event no longer consumed": _consumes_less,
    "a newer version of an event": _has_a_newer_version,
    "a step renamed": _renames_a_step,
}
