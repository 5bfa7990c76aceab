"""The ends of sagas within one unit of work: those that the log knows, and those that this transaction announces."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from toolkit.declaration.events import EndRequested, Event, SagaEnded, SagaState
from toolkit.messaging.envelope import Envelope, about_one_saga
from toolkit.persistence.saga_log_streams import Stream
from toolkit.protocol.keys import SagaKey, StreamKey


class EndedSagas:
    """Collects ends, and turns them into control messages."""

    def __init__(self, streams: Mapping[StreamKey, Stream]) -> None:
        self._known = {key[:2]: stream.end for key, stream in streams.items() if stream.end}
        self._ended_here = {key[:2] for key, stream in streams.items() if stream.has_announced_it}
        self._announced: dict[str, dict[SagaState, list[str]]] = {}
        self._requests: list[tuple[Envelope, Event]] = []
        #: The ids of the messages that this transaction answers with an end, or with a request for it.
        self.answered: list[str] = []
        #: The ends that other services announced, with the id of the message that brought each.
        self.received: list[tuple[str, SagaEnded]] = []

    def of(self, saga: SagaKey) -> SagaState | None:
        """Return how a saga ended, where the log knew it before this transaction."""
        return self._known.get(saga)

    def ended_here(self, saga: SagaKey) -> bool:
        """Whether a step of this service ended the saga; only this service may announce the end."""
        return saga in self._ended_here

    def announce(self, saga: SagaKey, end: SagaState) -> None:
        """Announce the end of a saga, for the first time or once more."""
        saga_type, saga_id = saga
        self._announced.setdefault(saga_type, {}).setdefault(end, []).append(saga_id)

    def answer(self, request_id: str, saga: SagaKey, *, now: datetime, traceparent: str | None) -> None:
        """Answer a message of a service that missed the saga's end, once for each id.

        The service that ended the saga announces the end again; any other asks that one to.
        """
        end = self.of(saga)
        if end is None or request_id in self.answered:
            return
        self.answered.append(request_id)
        if self.ended_here(saga):
            self.announce(saga, end)
            return
        saga_type, saga_id = saga
        request = EndRequested(saga_type=saga_type, saga_id=saga_id)
        self._requests.append((about_one_saga(request, now=now, traceparent=traceparent), request))

    def messages(self, now: datetime) -> Iterator[tuple[Envelope, Event]]:
        """Yield the control messages that this transaction sends, one for each saga type that ended."""
        yield from self._requests
        for saga_type, outcomes in self._announced.items():
            completed, failed = (outcomes.get(end, ()) for end in (SagaState.COMPLETED, SagaState.FAILED))
            ended = SagaEnded(
                saga_type=saga_type,
                completed=tuple(dict.fromkeys(completed)),
                failed=tuple(dict.fromkeys(failed)),
            )
            yield Envelope.of(SagaEnded, saga=(saga_type, ""), occurred_at=now), ended
