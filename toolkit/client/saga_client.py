"""Start sagas, read them, and wait for their ends, from any program: what the command line does, in a few calls."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

from toolkit.client.answering import services_taking
from toolkit.client.saga_report import SagaReport, report_of
from toolkit.client.service_client import ServiceClient
from toolkit.client.service_locations import in_database, locate
from toolkit.client.starting import Publisher, client_tracing, publisher_for, send
from toolkit.client.waiting import wait_until_ended
from toolkit.clock import Clock, SystemClock
from toolkit.configuration.settings import Settings, load_settings
from toolkit.declaration.events import Answer, Event, Saga
from toolkit.declaration.service import Service
from toolkit.errors import AmbiguousSagaError, NoServiceError, NotStartingError, SagaError
from toolkit.observability.tracing import Tracing
from toolkit.persistence.audit_log import Operator
from toolkit.protocol.question_rows import AnswerOutcome
from toolkit.protocol.timeline import Timeline


class NotEndedError(SagaError, TimeoutError):
    """A saga has not ended in time; `timeline` has what the services know of it so far."""

    def __init__(self, timeline: Timeline, timeout: timedelta) -> None:
        state = timeline.state or "unknown to all services"
        away = f"; {', '.join(timeline.unreachable)} can't be reached" if timeline.unreachable else ""
        super().__init__(
            f"saga {timeline.saga_id} has not ended within {timeout.total_seconds():g} s: it is {state}{away}"
        )
        self.timeline = timeline


class SagaClient:
    """Starts, reads and awaits sagas of these types; `connect` opens one."""

    def __init__(
        self,
        sagas: Sequence[Saga],
        publisher: Publisher,
        clients: Sequence[ServiceClient],
        *,
        clock: Clock,
        tracing: Tracing | None = None,
    ) -> None:
        self._sagas = {saga.starts_with: saga for saga in sagas}
        self._publisher = publisher
        self._clients = clients
        self._clock = clock
        self._tracing = tracing

    async def start(self, event: Event, *, patience: timedelta = timedelta(0)) -> str:
        """Publish the event that starts a saga, and return the saga's id once the event is stored.

        The same event again is the same message, so a retry starts no second saga. `patience`: how long to try while
        no service consumes the event.

        Raises:
            NotStartingError: the event starts none of the client's sagas.
            UnroutableError: no service consumes the event.
            UnreachableError: the connection to the broker was lost; whether the saga starts is not known.
        """
        saga = self._sagas.get(type(event))
        if saga is None:
            starting = ", ".join(sorted(each.__name__ for each in self._sagas)) or "none"
            raise NotStartingError(f"no saga of this client starts with {type(event).__name__}; its sagas: {starting}")
        saga_id = str(getattr(event, saga.id_field))
        events = {saga_id: event}
        await send(saga, events, self._publisher, clock=self._clock, tracing=self._tracing, patience=patience)
        return saga_id

    async def answer(
        self, event: Answer, *, by: str, reason: str, saga_type: str | None = None
    ) -> Sequence[AnswerOutcome]:
        """Answer the steps that wait for this event; return what became of it in each service that takes it.

        An empty list: no service knows the saga. `by` and `reason` are kept in the services' audits.

        Raises:
            InvalidAnswerError: no service takes such an answer.
            AmbiguousSagaError: no type is named, the client has several sagas, and several have this id.
            UnreachableError: a service that takes it, or may take it, does not answer.
        """
        name = type(event).__name__
        saga_type = self._type(saga_type)
        taking = await services_taking(name, self._clients)
        fields = event.model_dump(mode="json")
        outcomes: list[AnswerOutcome] = []
        for client, id_field in taking:
            given = await client.answer(str(fields[id_field]), name, fields, Operator(by, reason), saga_type)
            outcomes += [given] if given else []
        return outcomes

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaReport:
        """Return a saga's timeline and progress, as all services together show them.

        Its timeline has no entries where no service knows the saga; unreachable services are named in it.

        Raises:
            AmbiguousSagaError: no type is named, the client has several sagas, and several have this id.
        """
        return await report_of(saga_id, self._type(saga_type), self._clients)

    async def wait(  # asyncio.timeout would cancel it, and the timeline so far would be lost
        self,
        saga_id: str,
        saga_type: str | None = None,
        *,
        timeout: timedelta,  # noqa: ASYNC109
    ) -> Timeline:
        """Return a saga's timeline once the saga has ended, completed or failed.

        Raises:
            NotEndedError: it has not ended in time; a TimeoutError that has the timeline so far.
            AmbiguousSagaError: no type is named, the client has several sagas, and several have this id.
        """
        (timeline,) = await wait_until_ended(self._type(saga_type), [saga_id], self._clients, within=timeout)
        types = sorted({entry.saga_type for entry in timeline.entries})
        if len(types) > 1:
            raise AmbiguousSagaError(saga_id, types)
        if timeline.state is None or not timeline.state.is_ended:
            raise NotEndedError(timeline, timeout)
        return timeline

    def _type(self, named: str | None) -> str | None:
        """Return the type that is named, or the only one that this client has; None where it is not clear."""
        names = [saga.name for saga in self._sagas.values()]
        return names[0] if named is None and len(names) == 1 else named


@asynccontextmanager
async def connect(
    *sagas: Saga,
    services: Sequence[Service] = (),
    urls: Mapping[str, str] | None = None,
    settings: Settings | None = None,
) -> AsyncIterator[SagaClient]:
    """Open a client of these sagas, and close its connections at the end.

    - `services`: run in this process where the settings have the embedded transport; elsewhere only their contracts
      are used.
    - `urls`: the services' API addresses or databases, by name; without them SAGA_SERVICES, the databases of
      embedded services, or the files in the data directory.
    - `settings`: read from the environment by default.

    Raises:
        NoServiceError: no service to read is named or found.
        SettingsError: a setting is not allowed.
        UnreachableError: the broker does not answer.
    """
    settings = settings or load_settings()
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(client_tracing(settings))
        publisher = await stack.enter_async_context(publisher_for(services, settings))
        clients = _clients(services, urls, settings)
        for client in clients:
            stack.push_async_callback(client.close)
        yield SagaClient(sagas, publisher, clients, clock=SystemClock(), tracing=tracing)


def _clients(
    services: Sequence[Service], urls: Mapping[str, str] | None, settings: Settings
) -> Sequence[ServiceClient]:
    declared = {service.name: service for service in services}

    def find(name: str) -> Service:
        if name not in declared:
            raise NoServiceError(f"the client was opened without the declarations of {name}")
        return declared[name]

    named = [f"{name}={url}" for name, url in (urls or {}).items()]
    if services and not named and settings.broker_url == "embedded":
        return [in_database(name, settings.database_for(name), settings, find) for name in declared]
    return locate(named, settings, find)
