"""The explorer proves sound sagas, and agrees with a plain model on all their near misses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from services.demo import SERVICES
from tests.choreography_model import BAD, GOOD, START, Steps, faults, step
from tests.example_sagas.drawn import services_of
from tests.example_sagas.orchestrated_travel import COORDINATOR, orchestrated_services
from tests.example_sagas.travel import Script
from tests.example_sagas.vouchers import services_of_both
from tests.unit.checker.shapes import APPROVAL, DIAMOND, LINE, ORCHESTRATED, PEOPLE, SOUND, SURE_BRANCH, graph_of_steps
from toolkit.checker.check import check
from toolkit.checker.explorer import Exploration, explore
from toolkit.checker.moves import Invariant

#: The explorer checks when a saga ends, too; the model only that it does, and what stands in the end.
STRICTER = {Invariant.ONE_END, Invariant.NOTHING_LEFT, Invariant.NOTHING_LOST}


@pytest.mark.parametrize("name", SOUND)
def test_each_interleaving_of_a_sound_saga_holds(name: str) -> None:
    (report,) = check(services_of(SOUND[name]))

    assert report.findings == ()
    assert report.is_proved
    assert report.exploration.at_rest > 0
    assert faults(SOUND[name]) == {}


def test_the_sagas_that_ship_are_proved() -> None:
    reports = [*check(SERVICES), *check(services_of_both(Script()))]

    assert [(each.saga, each.is_proved) for each in reports] == [("order", True), ("trip", True), ("voucher", True)]
    assert max(each.exploration.states for each in reports) < 100


def test_a_saga_that_waits_for_people_holds() -> None:
    (report,) = check(services_of(APPROVAL, PEOPLE))

    assert report.is_proved
    assert report.exploration.graph.people == tuple(sorted(PEOPLE))
    assert faults(APPROVAL, PEOPLE) == {}


def test_a_saga_with_a_coordinator_holds() -> None:
    """Its steps emit commands, and each is undone after its command was refused or undone."""
    assert explored_steps(ORCHESTRATED).is_proved


@pytest.mark.parametrize("steps", [LINE, SURE_BRANCH, DIAMOND], ids=["line", "sure branch", "diamond"])
def test_the_explorer_finds_what_the_model_finds(steps: Steps) -> None:
    once = list(near_misses(steps))
    compared = once if steps is DIAMOND else [two for one in once for two in near_misses(one)]

    judged = [judgement(each) for each in compared]

    assert len(judged) > (40 if steps is DIAMOND else 400)
    assert [fault for fault, found in judged if fault and not found] == []
    assert [found for fault, found in judged if found - STRICTER and not fault] == []


def test_a_coordinators_services_are_explored_without_it() -> None:
    services = orchestrated_services(Script())

    (coordinated,), (alone,) = check(services), check(services[:-1])

    assert (coordinated.coordinator, coordinated.is_proved, coordinated.findings) == (COORDINATOR, True, ())
    assert (alone.coordinator, alone.is_proved) == (None, True)


def test_an_external_step_adds_nothing_to_find() -> None:
    """Its claim only keeps fences away, so the explorer models its outcome alone."""
    judged = [judgement(each, is_external=True) for each in (*near_misses(LINE), *near_misses(SURE_BRANCH))]

    assert len(judged) > 40
    assert any(fault for fault, _ in judged)
    assert [fault for fault, found in judged if fault and not found] == []
    assert [found for fault, found in judged if found - STRICTER and not fault] == []


def test_the_first_story_is_a_shortest_one() -> None:
    lost = LINE | {"notify": replace(LINE["notify"], on=(frozenset({"NotReserved"}),))}

    (found,) = explored_steps(lost).counterexamples

    assert len(found.story) == min(len(way) for way in faults(lost).values()) == 3


def test_an_unfinished_exploration_proves_nothing() -> None:
    explored = explore(graph_of_steps(LINE), most_states=10)

    assert not explored.is_complete
    assert not explored.is_proved
    assert explored.counterexamples == []
    assert explore(graph_of_steps(LINE), most_states=explored_steps(LINE).states).is_complete


def test_ten_steps_in_line_are_explored() -> None:
    line = {f"s{n}": step(f"E{n}", f"E{n + 1}", f"No{n}", f"No{n + 1}|Undone{n + 1}", f"Undone{n}") for n in range(9)}
    line["s0"] = replace(line["s0"], on=(frozenset({START}),))
    line["s9"] = step("E9", GOOD, "No9")

    explored = explored_steps(line | {"fail": step("No0|Undone0", BAD)})

    assert explored.is_proved
    assert explored.states < 10_000


def test_five_parallel_branches_are_explored() -> None:
    branches = {
        f"b{n}": step(
            START, f"B{n}", f"No{n}", "|".join(["NotPaid", *(f"No{m}" for m in range(5) if m != n)]), f"Undone{n}"
        )
        for n in range(5)
    }
    pay = step(" & ".join(f"B{n}" for n in range(5)), GOOD, "NotPaid")
    fail = step(" & ".join(f"No{n}|Undone{n}" for n in range(5)), BAD)

    explored = explored_steps(branches | {"pay": pay, "fail": fail})

    assert explored.is_proved
    assert explored.states < 20_000


def explored_steps(steps: Steps, people: tuple[str, ...] = ()) -> Exploration:
    return explore(graph_of_steps(steps, people))


def judgement(steps: Steps, *, is_external: bool = False) -> tuple[dict[str, list[str]], set[Invariant]]:
    """Return what the model finds, with all steps external that end nothing, and what the explorer finds."""
    external = {name: replace(each, is_external=is_external and not each.ends) for name, each in steps.items()}
    return faults(external), {found.invariant for found in explored_steps(steps).counterexamples}


def near_misses(steps: Steps) -> Iterator[Steps]:
    """Yield the saga with each single edge removed, added or moved, and each refusal added or removed."""
    consumed = [event for each in steps.values() for event in (each.no, each.undone) if event]
    successes = [START, *(each.ok for each in steps.values() if not each.ends)]
    for name, each in steps.items():
        changed = [
            replace(each, undo_on=one) for event in consumed if each.undone for one in toggled(each.undo_on, event)
        ]
        changed += [replace(each, on=(frozenset({event}),)) for event in successes if each.ok not in (BAD, event)]
        changed += [replace(each, on=one) for event in consumed if each.ok == BAD for one in toggled(each.on, event)]
        changed += [replace(each, no="" if each.no else f"No{name}")] if each.ok != BAD else []
        yield from (steps | {name: one} for one in changed)


def toggled(slots: tuple[frozenset[str], ...], event: str) -> Iterator[tuple[frozenset[str], ...]]:
    """Yield the slots with the event added to one of them, or removed from it; an empty slot goes."""
    for index, slot in enumerate(slots):
        changed = slot ^ {event}
        yield (*slots[:index], *([changed] if changed else []), *slots[index + 1 :])
