"""`/sagas/{id}`: one saga's whole story, from all services, and what may be done about it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from toolkit.audit import Operator
from toolkit.console.asking import LIVE_PATIENCE, PATIENCE, Services
from toolkit.console.deeds import Deeds, Line
from toolkit.console.drawing import STRANGERS, Looks, drawn, event_key, key_of
from toolkit.console.forms import form, operator
from toolkit.console.guard import Keys
from toolkit.console.layout import Arrow, Layout
from toolkit.console.rendering import Pages, clock, look, saga_path
from toolkit.console.sequence import Sequence as Drawing
from toolkit.console.sequence import is_closing, sequence_of
from toolkit.controls import Controls
from toolkit.errors import NotAllowedError, UnreachableError
from toolkit.events import SagaState
from toolkit.fence import StepState
from toolkit.graph import Choreography, Node
from toolkit.operations import Bite
from toolkit.progress import NodeProgress, Progress, progress
from toolkit.story import LogEntry, Story, tell
from toolkit.views import SagaView

_ON_THE_WAY_BACK = (SagaState.COMPENSATING, SagaState.FAILED)


@dataclass(frozen=True, slots=True)
class Row:
    """A line of the timeline: an entry, or a node that is still to come, in its service's lane."""

    service: str
    name: str
    status: str
    is_back: bool
    entry: LogEntry | None = None
    node: NodeProgress | None = None
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """The saga's choreography, with what became of each step on it."""

    layout: Layout
    looks: Looks
    links: Mapping[str, str]


@dataclass(frozen=True)
class SagaStory:
    """All that is known of one saga."""

    story: Story
    progress: Progress
    views: Mapping[str, SagaView]
    choreography: Choreography
    strangers: list[str]
    services: list[str]

    @property
    def is_known(self) -> bool:
        """Whether any service knows the saga."""
        return bool(self.story.entries) or any(not view.is_empty for view in self.views.values())

    @cached_property
    def rows(self) -> list[Row]:
        """The timeline: what was written, in the order of cause and effect."""
        return [self._row(entry) for entry in self.story.entries if not is_closing(entry)]

    @property
    def closing(self) -> dict[str, list[LogEntry]]:
        """What the services wrote when they were told of the saga's end, by service."""
        found: dict[str, list[LogEntry]] = {}
        for entry in self.story.entries:
            if is_closing(entry):
                found.setdefault(entry["service"], []).append(entry)
        return found

    @cached_property
    def to_come(self) -> list[Row]:
        """What nobody has written anything of yet: what remains, and what nobody can be asked about."""
        names = {(row.service, row.name) for row in self.rows}
        return [
            Row(node.service, node.name, str(node.status), node.kind == "compensation", node=node)
            for node in self.progress.remaining
            if (node.service, node.name) not in names
        ]

    @property
    def letters(self) -> list[dict[str, Any]]:
        """The saga's dead letters."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.dead_letters]

    @property
    def outbox(self) -> list[dict[str, Any]]:
        """What waits to go out for the saga."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.outbox]

    @property
    def overdue(self) -> list[dict[str, Any]]:
        """Its overdue steps."""
        return [{"service": name} | row for name, view in self.views.items() for row in view.overdue]

    @cached_property
    def graph(self) -> Graph | None:
        """The saga's graph, where any service tells its choreography."""
        saga = self.choreography.saga(str(self.story.saga_type))
        if saga is None:
            return None
        by_key = {key_of(node.service, node.name): node for node in self.progress.nodes}

        def told(node: Node) -> str:
            known = by_key.get(key_of(node.service, node.name))
            return _told(known) if known else ""

        layout = drawn(self.choreography, saga, told=told, strangers=self.strangers)
        tones = {key: look(str(node.status))[1] for key, node in by_key.items()} | {STRANGERS: look("unknown")[1]}
        taken = {str(entry["emitted_type"]) for entry in self.story.entries if entry["emitted_type"]}
        taken |= {str(entry["event_type"]) for entry in self.story.entries if entry["event_type"]}
        lines = {
            (line.arrow.source, line.arrow.target): "taken undone" if line.arrow.is_back else "taken good"
            for line in layout.lines
            if self._is_taken(line.arrow, set(by_key), taken)
        }
        tones |= {
            event_key(event): tone
            for event, tone in ((saga.starts_with, "good"), (saga.completes_with, "good"), (saga.fails_with, "bad"))
            if event in taken
        }
        links = {key: f"#step-{key}" for key in by_key}
        return Graph(layout, Looks(tones, lines), links)

    @cached_property
    def sequence(self) -> Drawing:
        """Who told whom what, in order."""
        return sequence_of(self.story.entries, self.choreography, self.services)

    def trace_ids(self) -> list[str]:
        """The traces that the saga left; one, unless it was started under several."""
        return list(dict.fromkeys(str(each["trace_id"]) for each in self.story.entries if each.get("trace_id")))

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        return (
            self.story.as_dict()
            | self.progress.as_dict()
            | {"services": {name: asdict(view) for name, view in self.views.items()}}
        )

    def node_of(self, entry: LogEntry) -> Node | None:
        """Return the step or the compensation that wrote an entry."""
        own = self._nodes_by_step.get((entry["service"], entry["step"], entry["saga_type"]), [])
        taking = [node for node in own if entry["event_type"] in node.triggers]
        return next(iter(taking or [node for node in own if not node.is_compensation]), None)

    @cached_property
    def _nodes_by_step(self) -> dict[tuple[str, str, str], list[Node]]:
        found: dict[tuple[str, str, str], list[Node]] = {}
        for node in self.choreography.nodes:
            found.setdefault((node.service, node.step, node.saga.name), []).append(node)
        return found

    @cached_property
    def _last_entries(self) -> dict[tuple[str, str], LogEntry]:
        return {(each["service"], each["step"]): each for each in self.story.entries}

    @cached_property
    def _emitted_by(self) -> dict[str, set[str]]:
        """The events that the saga's steps have emitted, by the step's key."""
        found: dict[str, set[str]] = {}
        for entry in self.story.entries:
            if entry["emitted_type"] and (node := self.node_of(entry)):
                found.setdefault(key_of(node.service, node.name), set()).add(str(entry["emitted_type"]))
        return found

    def _row(self, entry: LogEntry) -> Row:
        node = self.node_of(entry)
        is_refusal = entry["to_state"] == StepState.FAILED
        is_back = SagaState(entry["saga_state"]) in _ON_THE_WAY_BACK and not is_refusal
        told = next(
            (each for each in self.progress.nodes if node and (each.service, each.name) == (node.service, node.name)),
            None,
        )
        return Row(
            entry["service"],
            node.name if node else entry["step"],
            str(entry["to_state"]),
            is_back,
            entry=entry,
            node=told if entry is self._last_entries[entry["service"], entry["step"]] else None,
            attempts=node.handler.attempts if node else None,
        )

    def _is_taken(self, arrow: Arrow, known: set[str], taken: set[str]) -> bool:
        """Whether the saga went along an arrow; where nobody knows who is at its beginning, if it was told at all."""
        ends = [key.removeprefix("event:") for key in (arrow.source, arrow.target) if key.startswith("event:")]
        emitted = self._emitted_by.get(arrow.source, set()) if arrow.source in known else taken
        return not emitted.isdisjoint([*arrow.labels, *ends])


class SagaPage:
    """One saga: its story, a nudge, an abort."""

    def __init__(self, services: Services, pages: Pages, keys: Keys, deeds: Deeds, *, actor: str) -> None:
        self._services = services
        self._pages = pages
        self._keys = keys
        self._deeds = deeds
        self._actor = actor

    async def show(self, request: Request) -> Response:
        """Show a saga; as JSON, if that is asked for."""
        saga_id = request.path_params["id"]
        is_live = request.query_params.get("part") == "live"
        told = await self.story_of(saga_id, patience=LIVE_PATIENCE if is_live else PATIENCE)
        if request.query_params.get("format") == "json":
            return Response(
                to_json(told.as_dict(), indent=2),
                status_code=200 if told.is_known else 404,
                media_type="application/json",
            )
        return self._pages.page(
            request,
            "saga",
            saga_id=saga_id,
            told=told,
            deed=self._deeds.get(request.query_params.get("told", "")),
            new_deed=self._deeds.new_name,
            doing=request.query_params.get("do", ""),
        )

    async def story_of(self, saga_id: str, *, patience: float) -> SagaStory:
        """Ask all services for a saga, and put together what they know."""
        answers, (choreography, unknown) = await asyncio.gather(
            self._services.ask(("saga", saga_id), lambda each: each.saga(saga_id), patience=patience),
            self._services.choreography(patience=patience),
        )
        entries = {name: view.entries for name, view in answers.by_service.items()}
        story = tell(saga_id, entries, unreachable=answers.unreachable)
        return SagaStory(
            story,
            progress(story, choreography, answers.by_service),
            answers.by_service,
            choreography,
            list(unknown),
            self._services.names,
        )

    async def nudge(self, request: Request) -> Response:
        """Have all services send again what they sent last for the saga."""
        fields = await form(request, self._keys)
        by, saga_id = operator(fields, self._actor), fields.get("saga", "")

        async def doing() -> list[Line]:
            return list(
                await asyncio.gather(
                    *(_done(each, lambda each: each.nudge(saga_id, by)) for each in self._services.controls)
                )
            )

        await self._deeds.once(fields.get("deed", ""), "Nudged", doing)
        return _back(saga_id, fields)

    async def abort(self, request: Request) -> Response:
        """Have the first service that knows the saga ask all of them to abort it."""
        fields = await form(request, self._keys)
        by, saga_id = operator(fields, self._actor), fields.get("saga", "")
        await self._deeds.once(fields.get("deed", ""), "Abort", lambda: self._abort(saga_id, by))
        return _back(saga_id, fields)

    async def _abort(self, saga_id: str, by: Operator) -> list[Line]:
        lines = []
        for each in self._services.controls:
            line = await _done(each, lambda controls: controls.abort(saga_id, by))
            lines.append(line)
            if line.outcome in ("done", "refused"):  # it tells all the others
                return [line]
        return lines


async def _done(controls: Controls, doing: Any) -> Line:
    """Do something at one service, and say how it went."""
    try:
        bite: Bite = await doing(controls)
    except (UnreachableError, NotAllowedError) as error:
        return Line(controls.service, "away", str(error))
    if not bite.rows:
        return Line(controls.service, "nothing", "knows no such saga")
    refused = [row for row in bite.rows if row["outcome"] == "refused"]
    if len(refused) == len(bite.rows):
        return Line(controls.service, "refused", str(refused[0]["why"]))
    sent = [str(row["event_type"]) for row in bite.rows if row["outcome"] != "refused"]
    return Line(controls.service, "done", f"sent {', '.join(dict.fromkeys(sent))}")


def _back(saga_id: str, fields: Mapping[str, str]) -> Response:
    return RedirectResponse(f"{saga_path(saga_id)}?told={fields.get('deed', '')}", 303)


def _told(node: NodeProgress) -> str:
    sign, _, word = look(str(node.status))
    return f"{sign} {word}" + (f" {clock(node.at)}" if node.at and str(node.status) not in ("remaining",) else "")
