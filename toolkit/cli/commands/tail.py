"""`saga tail`: all services' log entries, as they are written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from typing import TYPE_CHECKING, Annotated, Any

import typer

from toolkit.cli.exit_codes import UsageError, complain
from toolkit.cli.interrupts import run_async
from toolkit.cli.options import Format, FormatOption, IntervalOption, ServicesOption
from toolkit.cli.output import console, print_json, text_of
from toolkit.cli.service_locations import opened
from toolkit.clock import SystemClock
from toolkit.errors import UnreachableError

if TYPE_CHECKING:
    from toolkit.client.service_client import Entries, ServiceClient
    from toolkit.protocol.log_entry import LogEntry

#: So many rows are read again each time: PostgreSQL numbers rows before they are committed, so one may come late.
_OVERLAP = 100


#: The type and the id of the saga that is followed; each may be None, and then any will do.
_Which = tuple[str | None, str | None]


def tail(
    saga: Annotated[str | None, typer.Option(metavar="ID", help="The entries of this saga only.")] = None,
    limit: Annotated[int, typer.Option(min=0, max=1_000, help="The newest so many of each service, first.")] = 10,
    saga_type: Annotated[
        str | None, typer.Option("--type", metavar="NAME", help="Of these, those of a saga of this type only.")
    ] = None,
    interval: IntervalOption = 0.5,
    service: ServicesOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Print all services' log entries as they are written.

    Ctrl-C ends it. What is read at once is put in the order of its times; `saga trace` knows the order of cause and
    effect. A service that can't be asked is named, and asked again.
    """
    if output is Format.JSON:
        raise UsageError("an endless output is no JSON document: take -o jsonl, an object a line")
    try:
        run_async(_follow((saga_type, saga), limit, interval, service, output))
    except KeyboardInterrupt:  # which is how one stops following
        return


async def _follow(saga: _Which, limit: int, interval: float, service: list[str] | None, output: Format) -> None:
    import asyncio

    async with opened(service) as known:
        logs = [_Log(each, saga) for each in known]
        wide = max(len(each.service) for each in known)
        newest = await asyncio.gather(*(log.newest(limit) for log in logs))
        while True:
            entries = sorted((entry for found in newest for entry in found), key=lambda entry: entry.at)
            _print(entries, output, wide)
            await asyncio.sleep(interval)
            newest = await asyncio.gather(*(log.new() for log in logs))


class _Log:
    """One service's log, from where it was read last."""

    def __init__(self, service: ServiceClient, saga: _Which) -> None:
        self._service = service
        self._type, self._saga = saga
        self._began = SystemClock().now()
        self._last: int | None = None
        self._seen: set[tuple[Any, ...]] = set()
        self._is_silent = False

    async def newest(self, limit: int) -> Entries:
        """Return the newest entries, and go on behind them from then on."""
        new = await self._ask(None, max(limit, _OVERLAP))
        if self._saga is not None and limit:
            new = await self._of_saga(limit)
        return new[-limit:] if limit else []

    async def new(self) -> Entries:
        """Return what was written since."""
        from toolkit.client.service_client import PAGE

        if self._last is None:  # it has not answered so far
            return [entry for entry in await self._ask(None, _OVERLAP) if entry.at >= self._began]
        found: Entries = []
        while True:
            before, more = self._last, await self._ask(max(self._last - _OVERLAP, 0), PAGE)
            found += more
            if self._last < before + PAGE - _OVERLAP:
                return found

    async def _ask(self, after: int | None, limit: int) -> Entries:
        import asyncio

        from toolkit.client.fan_out import RESPONSE_TIMEOUT

        try:
            async with asyncio.timeout(RESPONSE_TIMEOUT):
                entries, last = await self._service.since(after, limit)
        except (UnreachableError, TimeoutError) as error:
            self._complain(error)
            return []
        if self._is_silent:
            self._is_silent = False
            complain(f"{self._service.service} answers again")
        new = [entry for entry in entries if _key(entry) not in self._seen]
        # What was read before, and is not in what is read again, is too old to come once more.
        self._seen = {_key(entry) for entry in entries}
        self._last = max(last, self._last or 0)
        return [entry for entry in new if self._saga in (None, entry.saga_id) and self._type in (None, entry.saga_type)]

    async def _of_saga(self, limit: int) -> Entries:
        try:
            return await self._service.entries(self._saga, limit, saga_type=self._type)
        except UnreachableError as error:
            self._complain(error)
            return []

    def _complain(self, error: Exception) -> None:
        if not self._is_silent:
            complain(f"warning: {self._service.service} is unreachable, so its entries are missing here: {error}")
        self._is_silent = True


def _key(entry: LogEntry) -> tuple[Any, ...]:
    identifying = (entry.saga_type, entry.saga_id, entry.step, entry.position)
    return (*identifying, entry.to_state, entry.event_id, entry.attempt, entry.at)


def _print(entries: Sequence[LogEntry], output: Format, wide: int) -> None:
    from rich.text import Text

    from toolkit.cli.timelines import move

    if output is Format.JSONL:
        print_json(list(entries), output)
        return
    for entry in entries:
        sign, _, step, state, detail = move(entry)
        at = entry.at.astimezone(UTC).time().isoformat(timespec="milliseconds")
        facts = (text_of(at), text_of(entry.service.ljust(wide)), text_of(entry.saga_id))
        console().print(Text("  ").join([*facts, Text(" ").join([sign, step]), state, detail]), soft_wrap=True)
