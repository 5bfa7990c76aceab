"""The controls of services, wherever they are: what an operator reads and does, over HTTP or in the database.

Controls are a source that can also write. In the database they do so themselves, beside the running service or without
it; over HTTP they ask the service, and show the token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields
from datetime import timedelta
from typing import Any, Protocol, TypeVar
from urllib.parse import quote

import httpx
from pydantic import SecretStr, ValidationError
from sqlalchemy.exc import DBAPIError

from toolkit.client.sources import DatabaseSource, HttpSource, Rows, Source, cause_of, json_object, showing, with_times
from toolkit.clock import Clock
from toolkit.declaration.contract import Contract, EventContract
from toolkit.declaration.events import Event
from toolkit.errors import NotAllowedError, TokenRefusedError, UnreachableError
from toolkit.operations import dead_letters as dead_letter_operations
from toolkit.operations import sagas, views
from toolkit.operations.dead_letters import BatchResult
from toolkit.operations.search import Search, search
from toolkit.operations.statistics import Statistics
from toolkit.operations.views import SagaView
from toolkit.persistence import audit_log, contradictions, dead_letters, known_steps, outbox, pending_steps
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import is_contention
from toolkit.persistence.dead_letters import Selection
from toolkit.runtime import pruner
from toolkit.runtime.pruner import Pruned
from toolkit.tracking.snapshot import Snapshot

T = TypeVar("T")

#: How long a service may take for one bite, in seconds; our impatience would not stop it.
_BATCH_TIMEOUT = 60
_REFUSED = (httpx.codes.BAD_REQUEST, httpx.codes.FORBIDDEN)


class Controls(Source, Protocol):
    """What an operator may do at one service; UnreachableError where it can't be done now."""

    async def dead_letters(self, which: Selection, *, limit: int) -> Rows:
        """Return dead letters without their messages, the newest first."""
        ...

    async def dead_letter(self, dead_letter_id: str) -> dict[str, Any] | None:
        """Return one dead letter with its message, or None where there is no such letter."""
        ...

    async def count(self, which: Selection) -> int:
        """Return how many dead letters are meant."""
        ...

    async def redrive(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Redrive one bite of these letters."""
        ...

    async def drop(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Drop one bite of these letters."""
        ...

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Emit again what the steps of a saga emitted last; no rows where the service knows no such saga."""
        ...

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Prune one bite of what is older."""
        ...

    async def overdue(self, *, limit: int) -> Rows:
        """Return overdue steps, the longest waiting first."""
        ...

    async def contradictions(self, *, limit: int) -> Rows:
        """Return steps that do not stand as their sagas' ends have it, the newest first."""
        ...

    async def undeclared_steps(self) -> Rows:
        """Return the steps that the log holds and the service does not declare; none without its declarations."""
        ...

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> tuple[Rows, str | None]:
        """Return sagas, the latest moved first, and from where to go on; None where there are no more."""
        ...

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Return all that the service knows of a saga, sensitive fields masked; empty where it knows no such saga.

        Raises:
            AmbiguousSagaError: no type is named, and sagas of several types have this id.
        """
        ...

    async def outbox(self, *, limit: int) -> Rows:
        """Return what has not gone out yet, in the order in which it was added."""
        ...

    async def snapshot(self) -> Snapshot:
        """Return the service's figures as they are now."""
        ...

    async def ready(self) -> dict[str, bool]:
        """Return whether broker, database and relay are there; nothing of a database, which is no running service."""
        ...

    async def groups(self) -> Rows:
        """Return the dead letters in groups, by reason and step, the largest first; of each the newest's error."""
        ...

    async def audit(self, *, limit: int) -> Rows:
        """Return what was changed by hand, the newest first."""
        ...

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Emit again what was emitted last here for a saga that goes on; no rows where the service knows none such."""
        ...

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Ask all services to abort a saga that goes on; no rows where the service knows none such."""
        ...

    async def contract(self) -> Contract:
        """Return what the service hears and says."""
        ...


class DatabaseControls(DatabaseSource):
    """A service's database; what is in no database, `emitted` and `contract`, is asked for only where it is needed.

    - `emitted`: the events that the service declares, by name.
    - `contract`: the service's contract; UnreachableError where its declarations are not to be found.
    """

    def __init__(
        self,
        service: str,
        url: str,
        *,
        queue: str,
        emitted: Callable[[], dict[str, type[Event]]],
        contract: Callable[[], Contract],
        clock: Clock,
    ) -> None:
        super().__init__(service, url)
        self._queue = queue
        self._emitted = emitted
        self._contract = contract
        self._clock = clock
        self._statistics = Statistics(service, clock)

    async def dead_letters(self, which: Selection, *, limit: int) -> Rows:
        """Read dead letters."""
        declared = self._declared()
        return await self._read(lambda connection: views.dead_letter_list(connection, which, declared, limit=limit))

    async def dead_letter(self, dead_letter_id: str) -> dict[str, Any] | None:
        """Read one dead letter."""
        return await self._read(
            lambda connection: views.whole_dead_letter(connection, dead_letter_id, self._declared())
        )

    async def count(self, which: Selection) -> int:
        """Count dead letters."""
        return await self._read(lambda connection: dead_letters.count(connection, which))

    async def redrive(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Redrive one bite of these letters; the service's relay sends them."""
        facts: Any = {"queue": self._queue, "now": self._clock.now(), "after": after, "dry_run": dry_run}
        return await self._write(lambda database: dead_letter_operations.redrive(database, which, by, **facts))

    async def drop(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Drop one bite of these letters."""
        facts: Any = {"now": self._clock.now(), "after": after, "dry_run": dry_run}
        return await self._write(lambda database: dead_letter_operations.drop(database, which, by, **facts))

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Emit again what the steps of a saga emitted last; the service's relay sends it."""
        emitted = self._emitted()
        facts: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.replay(database, emitted, saga_id, by, **facts))

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Prune one bite of what is older."""
        now = self._clock.now()
        return await self._write(lambda database: pruner.prune(database, older_than=older_than, now=now, by=by))

    async def overdue(self, *, limit: int) -> Rows:
        """Read overdue steps."""
        return [
            asdict(step) for step in await self._read(lambda connection: pending_steps.listed(connection, limit=limit))
        ]

    async def contradictions(self, *, limit: int) -> Rows:
        """Read contradictions."""
        return await self._read(lambda connection: contradictions.listed(connection, limit=limit))

    async def undeclared_steps(self) -> Rows:
        """Read which steps were declared before."""
        try:
            contract = self._contract()
        except UnreachableError:
            return []
        return [each.as_row() for each in await self._read(lambda connection: known_steps.former(connection, contract))]

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> tuple[Rows, str | None]:
        """Read a page of sagas."""
        now, row = self._clock.now(), None if cursor is None else int(cursor)
        return await self._read(lambda connection: search(connection, which, now=now, limit=limit, cursor=row))

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Read all of one saga; what an event holds is shown only where its declaration is found."""
        declared = self._declared()
        return await self._read(lambda connection: views.view(connection, saga_id, declared, saga_type=saga_type))

    async def outbox(self, *, limit: int) -> Rows:
        """Read the outbox."""
        return await self._read(lambda connection: outbox.listed(connection, limit=limit))

    async def snapshot(self) -> Snapshot:
        """Read the figures; of broker and relay the database tells nothing."""
        try:
            return await self._statistics.snapshot(self._opened(), {"database": True})
        except (DBAPIError, OSError) as error:
            raise UnreachableError(f"{self.address} can't be read: {cause_of(error)}") from error

    async def ready(self) -> dict[str, bool]:
        """Tell nothing: a database knows neither broker nor relay."""
        return {}

    async def groups(self) -> Rows:
        """Read the dead letters in groups."""
        declared = self._declared()
        return await self._read(lambda connection: views.groups(connection, declared))

    async def audit(self, *, limit: int) -> Rows:
        """Read the audit."""
        return await self._read(lambda connection: audit_log.listed(connection, limit=limit))

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Nudge a saga; the service's relay sends it."""
        emitted = self._emitted()
        facts: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.nudge(database, emitted, saga_id, by, **facts))

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Abort a saga; the service's relay asks the others."""
        facts: Any = {"saga_type": saga_type, "now": self._clock.now()}
        return await self._write(lambda database: sagas.abort(database, saga_id, by, **facts))

    async def contract(self) -> Contract:
        """Return the contract that the declarations make."""
        return self._contract()

    def _declared(self) -> Mapping[str, EventContract]:
        """Return the events that the service declares; none where its declarations are not to be found."""
        try:
            return self._contract().events
        except UnreachableError:
            return {}

    async def _write(self, change: Callable[[Database], Awaitable[T]]) -> T:
        """Make a change; again where the running service was in its way, since then nothing of it was done."""
        while True:
            try:
                return await change(self._opened())
            except (DBAPIError, OSError) as error:
                if not is_contention(error):
                    raise UnreachableError(f"{self.address} can't be written: {cause_of(error)}") from error


class HttpControls(HttpSource):
    """A running service, by the address of its API."""

    def __init__(self, service: str, url: str, *, token: SecretStr | None, read_token: SecretStr | None = None) -> None:
        super().__init__(service, url, token=read_token or token)
        self._headers = showing(token or read_token)

    async def dead_letters(self, which: Selection, *, limit: int) -> Rows:
        """Ask for dead letters."""
        content = await self._demand("GET", "/dead-letters", params=_query(which) | {"limit": limit})
        return [with_times(row) for row in content.get("dead_letters", [])]

    async def dead_letter(self, dead_letter_id: str) -> dict[str, Any] | None:
        """Ask for one dead letter."""
        content = await self._demand("GET", f"/dead-letters/{quote(dead_letter_id, safe='')}")
        return with_times(content["dead_letter"]) if "dead_letter" in content else None

    async def count(self, which: Selection) -> int:
        """Ask how many dead letters are meant."""
        content = await self._demand("GET", "/dead-letters", params=_query(which) | {"limit": 1})
        return int(content.get("total", 0))

    async def redrive(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Ask for one bite of these letters to be redriven."""
        return await self._batch("/dead-letters/redrive", _order(which, by) | {"after": after, "dry_run": dry_run})

    async def drop(self, which: Selection, by: Operator, *, after: str = "", dry_run: bool = False) -> BatchResult:
        """Ask for one bite of these letters to be dropped."""
        return await self._batch("/dead-letters/drop", _order(which, by) | {"after": after, "dry_run": dry_run})

    async def replay(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Ask for a replay of a saga."""
        return await self._push(saga_id, "replay", by, saga_type)

    async def prune(self, older_than: timedelta, by: Operator) -> Pruned:
        """Ask for one bite of what is older to be pruned."""
        content = await self._demand("POST", "/prune", json=_errand(by) | {"older_than": older_than.total_seconds()})
        return Pruned(**{name: content[name] for name in ("sagas", "dead_letters", "audit", "is_all")})

    async def overdue(self, *, limit: int) -> Rows:
        """Ask for overdue steps."""
        content = await self._demand("GET", "/overdue", params={"limit": limit})
        return [with_times(row) for row in content.get("overdue", [])]

    async def contradictions(self, *, limit: int) -> Rows:
        """Ask for contradictions."""
        content = await self._demand("GET", "/contradictions", params={"limit": limit})
        return [with_times(row) for row in content.get("contradictions", [])]

    async def undeclared_steps(self) -> Rows:
        """Ask which steps were declared before."""
        return list((await self._demand("GET", "/undeclared-steps")).get("undeclared_steps", []))

    async def search(self, which: Search, *, limit: int = 100, cursor: str | None = None) -> tuple[Rows, str | None]:
        """Ask for a page of sagas."""
        age = which.older_than.total_seconds() if which.older_than is not None else None
        said = asdict(which) | {"older_than": age, "limit": limit, "cursor": cursor}
        content = await self._ask("/sagas", **said)
        return [with_times(row) for row in content.get("sagas", [])], content.get("next")

    async def saga(self, saga_id: str, saga_type: str | None = None) -> SagaView:
        """Ask for all of one saga."""
        content = await self._ask(f"/sagas/{quote(saga_id, safe='')}", type=saga_type)
        parts = {each.name: content.get(each.name) or [] for each in fields(SagaView)}
        return SagaView(**{name: [with_times(row) for row in rows] for name, rows in parts.items()})

    async def outbox(self, *, limit: int) -> Rows:
        """Ask for the outbox."""
        return await self._get("/outbox", "outbox", limit=limit)

    async def snapshot(self) -> Snapshot:
        """Ask for the figures."""
        try:
            return Snapshot.model_validate(await self._ask("/stats"))
        except ValidationError as error:
            raise UnreachableError(
                f"{self.address} tells no figures that can be read: is it an older version?"
            ) from error

    async def ready(self) -> dict[str, bool]:
        """Ask for its readiness; the answer has no name, so whether this service gave it, only others tell."""
        response = await self._answer("GET", "/readyz")
        return {part: is_there is True for part, is_there in json_object(response).items()}

    async def groups(self) -> Rows:
        """Ask for the dead letters in groups."""
        return await self._get("/dead-letters/groups", "groups")

    async def audit(self, *, limit: int) -> Rows:
        """Ask for the audit."""
        content = await self._demand("GET", "/audit", params={"limit": limit})
        return [with_times(row) for row in content.get("audit", [])]

    async def nudge(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Ask for a nudge."""
        return await self._push(saga_id, "nudge", by, saga_type)

    async def abort(self, saga_id: str, by: Operator, saga_type: str | None = None) -> BatchResult:
        """Ask for an abort."""
        return await self._push(saga_id, "abort", by, saga_type)

    async def contract(self) -> Contract:
        """Ask for the contract."""
        try:
            return Contract.model_validate(await self._ask("/contract"))
        except ValidationError as error:
            raise UnreachableError(
                f"{self.address} tells no contract that can be read: is it an older version?"
            ) from error

    async def _push(self, saga_id: str, verb: str, by: Operator, saga_type: str | None) -> BatchResult:
        said = {} if saga_type is None else {"type": saga_type}
        return await self._batch(f"/sagas/{quote(saga_id, safe='')}/{verb}", _errand(by) | said)

    async def _batch(self, path: str, order: Mapping[str, Any]) -> BatchResult:
        content = await self._demand("POST", path, json=order)
        return BatchResult(rows=content.get("rows", []), after=content.get("after"))

    async def _demand(self, method: str, path: str, **what: Any) -> dict[str, Any]:
        """Ask, showing the token.

        Raises:
            TokenRefusedError: the service wants a token, or another one.
            NotAllowedError: it refuses the question.
            UnreachableError: it does not answer.
        """
        response = await self._answer(method, path, headers=self._headers, timeout=_BATCH_TIMEOUT, **what)
        if response.status_code == httpx.codes.UNAUTHORIZED:
            raise TokenRefusedError(self.service, self.address, _fault(response), is_shown=bool(self._headers))
        if response.status_code in _REFUSED:
            raise NotAllowedError(f"{self.address} answers {response.status_code}: {_fault(response)}")
        return self._content(response)


def _query(which: Selection) -> dict[str, Any]:
    before = which.before.isoformat() if which.before else None
    said = {"reason": which.reason, "step": which.step, "saga": which.saga_id, "type": which.saga_type}
    said |= {"before": before, "up_to": which.up_to}
    return {name: value for name, value in (said | {"id": which.ids}).items() if value}


def _order(which: Selection, by: Operator) -> dict[str, Any]:
    said = _query(which)
    names = {"id": "ids", "reason": "reason_is"}
    narrowed = {names.get(name, name): value for name, value in said.items()}
    return _errand(by) | narrowed | {"all": not said.keys() - {"up_to"}}


def _errand(by: Operator) -> dict[str, Any]:
    return {"reason": by.reason, "actor": by.name}


def _fault(response: httpx.Response) -> str:
    try:
        return str(response.json()["error"])
    except (ValueError, KeyError, TypeError):
        return response.reason_phrase
