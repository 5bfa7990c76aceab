"""The moves of a saga that begins in an old release and goes on in a new one.

Each release has the moves of its own graph, upon common bits: steps go by their service and name, as the saga log has
them, and events by their forms. A deployment is a move, too, so it comes at any moment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from toolkit.checker.graph import GraphStep, Slot
from toolkit.checker.moves import Action, Bits, GraphMoves, Invariant, Move, Moves, compiled
from toolkit.compatibility.forms import Forms, Level
from toolkit.compatibility.releases import Change, Which


@dataclass(frozen=True, slots=True)
class Rollout:
    """How a change is deployed: at one moment, or service by service, its replicas one after the other.

    `order`: services that are deployed one after the other, before all others.
    """

    is_rolling: bool = False
    order: tuple[str, ...] = ()


class ReleaseMoves(GraphMoves):
    """The moves of one release's graph; those at a level above CERTAIN may happen, and need not."""

    def __init__(self, change: Change, which: Which, bits: Bits, forms: Forms, *, level: Level) -> None:
        super().__init__(change.release(which).graph, bits)
        self._change = change
        self._which = which
        self._forms = forms
        self._level = level

    def _sent(self, event: str) -> int:
        return self._forms.sent(event, self._which)

    def _taken(self, step: GraphStep, slot: Slot, action: Action) -> int:
        level = self._level
        is_join = len(step.slots) > 1
        if level is Level.POSSIBLE and is_join and action in (Action.REFUSES, Action.EXPIRES):
            level = Level.GATHERED
        slots = step.slots if action is Action.EXPIRES else (slot,)
        mask = 0
        for each in slots:
            use = self._which, step.place, action is Action.UNDONE, each
            mask |= self._forms.filling(use, level)
            for place in self._forms.nudging(use):
                mask |= self.bits.done[place]
        return mask

    def _later(self, step: GraphStep) -> Iterable[GraphStep]:
        """Return the steps that the release undoes before this one, and those of the old one that it does not have."""
        yield from super()._later(step)
        former, old = self._change.old.steps.get(step.place), self._change.old.graph
        gone = self._change.old.steps.keys() - self._change.new.steps.keys()
        if former and self._which is Which.NEW:
            yield from (each for each in old.after(former) & old.undoable if each.place in gone)

    def _forward(self, step: GraphStep) -> Iterator[Move]:
        yield from super()._forward(step)
        is_unset = self._is_from_both(step) and self._had_deadline(step) and not step.has_deadline
        if is_unset and step.refusals and self._level is Level.POSSIBLE:
            yield self._expiry(step)

    def _expiry(self, step: GraphStep) -> Move:
        """Return the move of a deadline; one that the old release did not set may never pass."""
        found = super()._expiry(step)
        is_set = not self._is_from_both(step) or self._had_deadline(step)
        return found if is_set or self._level is Level.POSSIBLE else replace(found, slots=(0,))

    def _is_from_both(self, step: GraphStep) -> bool:
        return self._which is Which.NEW and step.place in self._change.old.steps

    def _had_deadline(self, step: GraphStep) -> bool:
        return self._change.old.steps[step.place].has_deadline


class ChangedMoves(Moves):
    """All moves of a saga that begins in the old release, and the deployments of the new one."""

    def __init__(self, change: Change, rollout: Rollout) -> None:
        self.change = change
        self.graph = change.new.graph
        self._forms = Forms(change)
        self.bits = Bits(self._forms.width, change.places())
        self._next = self.bits.free
        #: Set by the first deployment: what comes before is the old release's own.
        self.changed = self._bit()
        services = change.changed_services if rollout.is_rolling else []
        self._begun = {service: self._bit() for service in services}
        self._gone = {service: self._bit() for service in services}
        self._kept = self._unreadable_originals()
        self.starts_with = change.old.saga.starts_with
        self.start = self._forms.sent(self.starts_with, Which.OLD)
        #: The moves of the old release, whatever is deployed.
        self.former = tuple(ReleaseMoves(change, Which.OLD, self.bits, self._forms, level=Level.CERTAIN).moves())
        deployments = tuple(self._deployments(rollout))
        forced = [*self._guarded(Which.OLD, self.former), *self._of_new()]
        self.all = (*forced, *deployments)
        self.compiled = compiled(forced)
        self.deployments = compiled(deployments)
        self._standing = {which: self._undoable(which) for which in Which}
        every = [step for which in Which for step in change.release(which).graph.steps]
        self.refused_or_undone = self.bits.of(every, lambda done: done << 1 | done << 2)

    def violation(self, before: int, move: Move, after: int) -> Invariant | None:
        """Return the invariant that a move breaks, by the release that the state is in; a deployment breaks none."""
        if move.action in (Action.DEPLOY, Action.RETIRE):
            return None
        self.standing = self._standing[Which.NEW if after & self.changed else Which.OLD]
        return super().violation(before, move, after)

    def counts(self, state: int) -> bool:
        """Whether the change has begun."""
        return bool(state & self.changed)

    def steps_that(self, state: int, action: Action) -> list[GraphStep]:
        """Return the steps of both releases in this state, as the new one declares them, if it does."""
        shift = {Action.COMPLETES: 0, Action.REFUSES: 1, Action.UNDONE: 2}[action]
        steps = self.change.old.steps | self.change.new.steps
        return [step for place, step in steps.items() if state & self.bits.done[place] << shift]

    def lost(self, state: int) -> list[Move]:
        """Return what the old release would do in this state: the moves that the saga has lost by the change."""
        found = [each for each in self.former if each.is_possible(state) and not each.is_voluntary]
        return [each for each in found if each.after(state) != state]

    def _bit(self) -> int:
        bit, self._next = self._next, self._next << 1
        return bit

    def _unreadable_originals(self) -> dict[str, tuple[int, bool]]:
        """Return a bit for each step whose compensation may not read what the old release emitted.

        It marks what the old release has completed; with it, whether no such event can be read.
        """
        found = {}
        for place, step in self.change.old.steps.items():
            if faults := self.change.original_faults(step):
                found[place] = self._bit(), any(each.is_certain for each in faults)
        return found

    def _undoable(self, which: Which) -> int:
        """Return the bits of the steps that may not stand in a failed saga, as this release has it."""
        old, new = self.change.old.graph.undoable, self.change.new.graph.undoable
        places = {step.place for step in new}
        known = self.change.new.steps
        if which is Which.OLD:
            return self.bits.of(old, lambda done: done)
        kept = [step for step in old if step.place in places or step.place not in known]
        added = [step for step in new if step.place not in self.change.old.steps]
        return self.bits.of([*kept, *added], lambda done: done)

    def _of_new(self) -> Iterator[Move]:
        """Yield the moves of the new release, and as voluntary ones those that depend on a message or its coming."""
        certain, possible = (
            [*ReleaseMoves(self.change, Which.NEW, self.bits, self._forms, level=each).moves()]
            for each in (Level.CERTAIN, Level.POSSIBLE)
        )
        known = {(each.action, each.step, each.emits, each.slots) for each in certain}
        doubtful = [
            replace(each, is_voluntary=True)
            for each in possible
            if (each.action, each.step, each.emits, each.slots) not in known
        ]
        for move in self._guarded(Which.NEW, [*certain, *doubtful]):
            yield from self._with_original(move)

    def _with_original(self, move: Move) -> Iterator[Move]:
        """Yield a new compensation's move: it may fail where the old release emitted the original."""
        mark, is_certain = self._kept.get(move.step.place, (0, False)) if move.step else (0, False)
        if move.action is not Action.UNDONE or not mark:
            yield move
            return
        yield replace(move, absent=move.absent | mark)
        if not is_certain:
            yield replace(move, clears=move.clears | mark, is_voluntary=True)

    def _guarded(self, which: Which, moves: Iterable[Move]) -> Iterator[Move]:
        """Yield a release's moves, each possible while its service runs this release."""
        for move in moves:
            guard = self._guard(move, which)
            mark = self._kept.get(move.step.place, (0, False))[0] if move.step else 0
            if which is Which.OLD and mark and move.action is Action.COMPLETES:
                move = replace(move, sets=move.sets | mark)
            if which is Which.OLD:
                yield replace(move, absent=move.absent | guard)
            else:
                yield replace(move, present=move.present | guard)

    def _guard(self, move: Move, which: Which) -> int:
        """Return the bit that ends a release's moves of a service, or that begins them.

        People and operators need no release: what they send in the old form, they may send for ever.
        """
        if move.step is None:
            return 0 if which is Which.OLD else self.changed
        bits = self._gone if which is Which.OLD else self._begun
        return bits.get(move.step.service, self.changed)

    def _deployments(self, rollout: Rollout) -> Iterator[Move]:
        if not self._begun:
            yield Move(Action.DEPLOY, None, None, absent=self.changed, sets=self.changed)
        for service, begun in self._begun.items():
            gone = self._gone[service]
            before = self._gone_of(_before(service, rollout.order))
            yield Move(
                Action.DEPLOY, None, None, absent=begun, sets=begun | self.changed, present=before, service=service
            )
            yield Move(Action.RETIRE, None, None, absent=gone, sets=gone, present=begun, service=service)

    def _gone_of(self, services: Sequence[str]) -> int:
        mask = 0
        for each in services:
            mask |= self._gone.get(each, 0)
        return mask


def _before(service: str, order: Sequence[str]) -> Sequence[str]:
    return order[: order.index(service)] if service in order else order
