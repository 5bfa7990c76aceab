"""The rules for a participant's names, options, steps and compensations; a violation is a `DeclarationError`."""

from __future__ import annotations

from collections.abc import Collection
from datetime import timedelta

from toolkit.declaration.event_rules import check_buildable, check_event
from toolkit.declaration.events import PLAIN_WORD, Answer, Event, Refusal, Saga
from toolkit.declaration.retry_policy import RetryPolicy
from toolkit.declaration.signature import Signature
from toolkit.errors import DeclarationError


def check_name(kind: str, name: object) -> None:
    """Check the name of a service or a participant: queues, files and metrics are named after it.

    Raises:
        DeclarationError: it is not a plain word.
    """
    if not (isinstance(name, str) and PLAIN_WORD.fullmatch(name)):
        cure = "Use up to 64 ASCII letters, digits, `_` and `-`: queues and files are named after it"
        raise DeclarationError(f"{kind} {name!r}", "its name is not a plain word", cure)


def check_options(where: str, *, timeout: object, retry: object, external: object) -> None:
    """Check the types of a participant's or a step's options; None is always allowed.

    Raises:
        DeclarationError: an option has another type, or the timeout is not positive.
    """
    if timeout is not None and not (isinstance(timeout, timedelta) and timeout > timedelta(0)):
        fault = f"its timeout {timeout!r} is not a positive timedelta"
        raise DeclarationError(where, fault, "Declare it as in `timeout=timedelta(seconds=30)`")
    if retry is not None and not isinstance(retry, RetryPolicy):
        fault = f"its retry {retry!r} is not a RetryPolicy"
        raise DeclarationError(where, fault, "Declare it as in `retry=RetryPolicy(attempts=3)`")
    if external is not None and not isinstance(external, bool):
        raise DeclarationError(where, f"its external={external!r} is neither True nor False", "Set one of them")


def check_step(where: str, signature: Signature, *, saga: Saga) -> None:
    """Check what a step takes and emits.

    Raises:
        DeclarationError: it emits an answer, has not exactly one success, takes an original, or its events are unfit.
    """
    if emitted := [event.__name__ for event in signature.emits if issubclass(event, Answer)]:
        fault = f"it emits {emitted[0]}, which is an Answer, and an answer can't be emitted"
        cure = "Return an Event: an answer comes from a person or a system outside, and a step takes it as a parameter"
        raise DeclarationError(where, fault, cure)
    if len(signature.successes) != 1:
        names = ", ".join(event.__name__ for event in signature.successes) or "none"
        raise DeclarationError(
            where,
            f"a step has exactly one success among what it returns, here: {names}",
            "Return one Event for the success, and a subclass of Refusal for each business refusal",
        )
    if signature.original is not None:
        raise DeclarationError(
            where, "a step has no original", "Only a compensation takes a parameter named `original`"
        )
    _check_events(where, signature, saga)
    for refusal in signature.refusals:
        check_buildable(where, refusal, saga, "a refusal is also emitted for a step that never ran")


def check_answers(where: str, signature: Signature, *, timeout: timedelta | None, remind: object) -> None:
    """Check how a step takes answers.

    Raises:
        DeclarationError: it takes nothing that asks for one, or reminds of none, or not before its timeout.
    """
    answered = [name for name, events in signature.slots.items() if any(issubclass(each, Answer) for each in events)]
    mixed = [name for name in answered if not all(issubclass(each, Answer) for each in signature.slots[name])]
    if mixed:
        fault = f"the parameter {mixed[0]!r} takes answers and other events"
        raise DeclarationError(where, fault, "Take the answers in a parameter of their own: it shows what is asked")
    if len(answered) == len(signature.slots):
        fault = "it takes answers only, so that nothing shows what is asked"
        raise DeclarationError(where, fault, "Take the event that asks as well, `request: LoanPrepared`")
    if remind is None:
        return
    if not (isinstance(remind, timedelta) and remind > timedelta(0)):
        fault = f"its remind {remind!r} is not a positive timedelta"
        raise DeclarationError(where, fault, "Declare it as in `remind=timedelta(days=1)`")
    if not answered:
        raise DeclarationError(where, "it reminds, but waits for no Answer", "Take an Answer, or drop `remind`")
    if timeout and signature.refusals and remind >= timeout:
        fault = f"its remind {remind} is not shorter than its timeout {timeout}, so no reminder ever comes"
        raise DeclarationError(where, fault, "Shorten `remind`, or drop it")


def check_is_new(where: str, name: str, *, steps: Collection[str]) -> None:
    """Check that none of the participant's earlier steps has the step's name.

    Raises:
        DeclarationError: one has it.
    """
    if name in steps:
        raise DeclarationError(where, "a step of this name exists already", "Rename one: the name is the fence's key")


def check_compensation(
    where: str, signature: Signature, *, step: str, success: type[Event], external: bool, saga: Saga
) -> None:
    """Check what the compensation of a step takes and emits; `success` is the event that the step emits.

    Raises:
        DeclarationError: it emits not exactly one event, or takes another original than the step leaves.
    """
    if len(signature.emits) != 1 or issubclass(signature.emits[0], Refusal):
        raise DeclarationError(
            where,
            "a compensation emits exactly one event, and never a refusal",
            "Return the one event that the compensation of the step before runs on; raise errors, they are retried",
        )
    if signature.originals and not issubclass(success, signature.originals):
        names = " | ".join(event.__name__ for event in signature.originals)
        raise DeclarationError(
            where,
            f"`original` is {names}, but {step} emits {success.__name__}",
            f"Declare `original: {success.__name__}`",
        )
    if external and signature.original is not None and not signature.original_may_be_none:
        raise DeclarationError(
            where,
            f"{step} is external, so its outcome may be unknown when it is undone",
            f"Declare `original: {success.__name__} | None`, and void by key where it is None",
        )
    if answers := [event.__name__ for event in (*signature.triggers, *signature.emits) if issubclass(event, Answer)]:
        fault = f"a compensation has nothing to do with an Answer, here: {answers[0]}"
        raise DeclarationError(where, fault, "Let a step wait for the answer, and undo on that step's events")
    if signature.emits[0] in (saga.completes_with, saga.fails_with):
        end = signature.emits[0].__name__
        fault = f"it emits {end}, which ends the saga {saga.name} only as the success of a step"
        raise DeclarationError(where, fault, f"Emit another event, and let a step that runs on this one return {end}")
    _check_events(where, signature, saga)
    check_buildable(where, signature.emits[0], saga, "it is also emitted where there was nothing to undo")


def _check_events(where: str, signature: Signature, saga: Saga) -> None:
    for event_type in (*signature.triggers, *signature.emits):
        check_event(where, event_type, saga)
