"""Pages from templates: text from outside is escaped, and a live part that did not change is not sent again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from toolkit.console.guard import SessionKeys
from toolkit.json_output import as_json
from toolkit.protocol.log_entry import answered_by

_HERE = Path(__file__).parent
STATIC = _HERE / "static"

#: Each state's sign, tone (the colour's name in the stylesheet) and word: no state is marked by its colour alone.
LOOKS: dict[str, tuple[str, str, str]] = {
    # sagas
    "Started": ("▸", "busy", "started"),
    "Pending": ("▸", "busy", "pending"),
    "Compensating": ("↩", "undone", "compensating"),
    "Completed": ("✓", "good", "completed"),
    "Failed": ("✗", "bad", "failed"),
    # steps, by their status in the whole timeline
    "done": ("✓", "good", "done"),
    "running": ("▸", "busy", "running"),
    "waiting": ("◌", "busy", "waiting"),
    "remaining": ("○", "calm ahead", "remaining"),
    "overdue": ("!", "warn grave", "overdue"),
    "undone": ("↩", "undone", "undone"),
    "refused": ("✗", "bad", "refused"),
    "fenced": ("⊘", "calm", "fenced"),
    "skipped": ("-", "calm ahead", "skipped"),
    "unknown": ("?", "calm away", "unknown"),
    # entries of the saga log
    "gathering": ("◌", "calm", "gathering"),
    "executing": ("▸", "busy", "executing"),
    "completed": ("✓", "good", "completed"),
    "failed": ("✗", "bad", "refused"),
    "voiding": ("↩", "undone", "voiding"),
    "compensating": ("↩", "undone", "compensating"),
    "compensated": ("↩", "undone", "compensated"),
    "confirmed": ("✓", "calm", "confirmed"),
    "retrying": ("↻", "warn", "retrying"),
    "ignored": ("·", "calm", "ignored"),
    "dead_lettered": ("!", "bad", "dead letter"),
    "nudged": ("↻", "calm", "nudged"),
    "aborted": ("⊘", "warn", "aborted"),
    "ended": ("·", "calm", "ended"),
    "redriven": ("↻", "calm", "redriven"),
    "dropped": ("⊘", "calm", "dropped"),
    "replayed": ("↻", "calm", "replayed"),
    "reminded": ("↻", "calm", "reminded"),
    # kinds of attention
    "dead_letter": ("!", "bad", "dead letter"),
    # services
    "ready": ("✓", "good", "ready"),
    "not ready": ("!", "bad", "not ready"),
    "unreachable": ("?", "warn", "unreachable"),
}


class Pages:
    """Renders the console's pages."""

    def __init__(self, keys: SessionKeys, *, must_sign_in: bool, actor: str) -> None:
        self._keys = keys
        self._actor = actor
        self._must_sign_in = must_sign_in
        self._templates = Environment(
            loader=FileSystemLoader(_HERE / "templates"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._templates.filters |= {
            "clock": clock,
            "instant": instant,
            "moment": moment,
            "iso": iso,
            "span": span,
            "count": count,
            "pretty": pretty,
            "segment": segment,
            "answered_by": answered_by,
        }
        self._templates.globals |= {"look": look, "saga_path": saga_path}

    def page(self, request: Request, name: str, *, status: int = 200, **values: Any) -> Response:
        """Return a page; with `part=live` only its live part, or 204 if the browser has it already."""
        if request.query_params.get("part") == "live" and f"{name}.live.html" in self._templates.list_templates():
            return self._live(request, name, values)
        cookie = request.state.cookie
        content = self._templates.get_template(f"{name}.html").render(
            values
            | {
                "request": request,
                "here": request.url.path,
                "live_path": live_path(request),
                "form_token": lambda: self._keys.form_token(cookie),
                "person": self._keys.name(cookie) or ("" if self._must_sign_in else self._actor),
                "may_sign_out": self._must_sign_in and self._keys.role(cookie) == "operator",
                "now": datetime.now(UTC),
            }
        )
        return HTMLResponse(content, status)

    def _live(self, request: Request, name: str, values: Mapping[str, Any]) -> Response:
        content = self._templates.get_template(f"{name}.live.html").render(dict(values) | {"now": datetime.now(UTC)})
        seen = f'"{hashlib.sha256(content.encode()).hexdigest()[:20]}"'
        if request.headers.get("if-none-match") == seen:
            return Response(status_code=204, headers={"ETag": seen})
        return HTMLResponse(content, headers={"ETag": seen} | ({"X-Final": "yes"} if values.get("is_final") else {}))


def live_path(request: Request) -> str:
    """Return the address of a page's live part."""
    # As the browser sent it: an escaped slash belongs to an id, and separates no segments.
    path = request.scope.get("raw_path", b"").decode("latin-1") or quote(request.scope["path"])
    return f"{path}?{urlencode([*request.query_params.multi_items(), ('part', 'live')])}"


def look(word: str) -> tuple[str, str, str]:
    """Return a state's sign, tone and word; an unknown state is shown as it is."""
    return LOOKS.get(word, ("·", "calm", word))


def saga_path(saga_id: str, saga_type: str | None = None, **query: str) -> str:
    """Return the address of a saga's page; without a type, of the only saga with that id."""
    parameters = urlencode(({"type": saga_type} if saga_type else {}) | query)
    return f"/sagas/{segment(saga_id)}" + (f"?{parameters}" if parameters else "")


def segment(text: str) -> str:
    """Return a text as one segment of a path."""
    return quote(text, safe="")


def clock(at: datetime) -> str:
    """Return the time of day, in UTC."""
    return at.astimezone(UTC).strftime("%H:%M:%S")


def instant(at: datetime) -> str:
    """Return the time of day with its milliseconds, in UTC."""
    return at.astimezone(UTC).time().isoformat(timespec="milliseconds")


def moment(at: datetime) -> str:
    """Return the date and time, in UTC."""
    return at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


def iso(at: datetime) -> str:
    """Return the time in ISO 8601, in UTC."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds")


def span(seconds: float) -> str:
    """Return a duration in seconds with two significant digits, in the unit that fits."""
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, length, following in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < following:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds / 86_400:.0f} d"


def count(number: float) -> str:
    """Return a number with thousands separators."""
    return f"{number:,.0f}" if number == int(number) else f"{number:,.1f}"


def pretty(content: Any) -> str:
    """Return data as indented JSON."""
    return as_json(content, indent=2)
