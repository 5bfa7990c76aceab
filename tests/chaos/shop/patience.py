"""More attempts: under chaos an order's end depends on the order, and not on how often a fault met its attempts."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from toolkit import Participant, RetryPolicy

#: Longer than each fault of the plan, the longest lock and the longest revoked right included.
PATIENT = RetryPolicy(attempts=60, first_delay=timedelta(milliseconds=200), ceiling=timedelta(seconds=3))


def patient(participant: Participant) -> Participant:
    """Return the same participant, with more attempts than the faults of a run can spend."""
    copy = Participant(participant.name, saga=participant.saga)
    copy.steps = [replace(step, retry=PATIENT) for step in participant.steps]
    of = dict(zip(participant.steps, copy.steps, strict=True))
    copy.compensations = [replace(each, of=of[each.of], retry=PATIENT) for each in participant.compensations]
    return copy
