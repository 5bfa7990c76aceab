"""The people of a demonstration: they answer open questions, as `saga answer` does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from toolkit.cli.payload import apply, validated
from toolkit.client.saga_client import SagaClient
from toolkit.declaration.events import Answer, Saga
from toolkit.protocol.question_rows import ANSWERED, REFUSED, AnswerOutcome

#: The pause, in seconds, until an answer to a question that is not open yet is given again.
_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class GivenAnswer:
    """An answer that a person gives, with these fields: as soon as the question is open, or after the saga's end."""

    event: type[Answer]
    by: str
    changes: tuple[str, ...] = ()
    is_late: bool = False

    def event_for(self, saga: Saga, saga_id: str) -> Answer:
        """Return the answer to this saga, built as by `saga answer --set …`."""
        fields: dict[str, object] = {saga.id_field: saga_id}
        for change in self.changes:
            apply(change, fields)
        return validated(self.event, fields)


@dataclass(frozen=True, slots=True)
class PlayedAnswer:
    """What became of an answer; None: there was no question in time. The first answer in time `counts`."""

    saga_id: str
    given: GivenAnswer
    outcome: AnswerOutcome | None
    counts: bool

    @property
    def is_right(self) -> bool:
        """Whether it was taken if it counts, and refused if not."""
        return self.outcome is not None and self.outcome.outcome == (ANSWERED if self.counts else REFUSED)


async def play(
    saga: Saga, saga_id: str, answers: Sequence[GivenAnswer], client: SagaClient, *, within: timedelta
) -> list[PlayedAnswer]:
    """Give a saga's answers one after the other, and return what became of each."""
    played: list[PlayedAnswer] = []
    for given in answers:
        try:
            async with asyncio.timeout(within.total_seconds()):
                if given.is_late:
                    await client.wait(saga_id, saga.name, timeout=within)
                outcome = await _give(given.event_for(saga, saga_id), given.by, client)
        except TimeoutError:
            outcome = None
        played.append(PlayedAnswer(saga_id, given, outcome, counts=not (given.is_late or played)))
    return played


async def _give(event: Answer, by: str, client: SagaClient) -> AnswerOutcome:
    """Give one answer, again and again until the service that asks knows the saga."""
    while True:
        if outcomes := await client.answer(event, by=by, reason="the demonstration"):
            return outcomes[0]
        await asyncio.sleep(_PAUSE)
