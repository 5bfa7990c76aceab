"""Reading a form: small, from a page of ours, by somebody who has a name, and with a reason that can be kept."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from toolkit.console.guard import MOST_BYTES, Keys
from toolkit.persistence.audit_log import Operator

#: As the services take it; a reason is a sentence, no report.
_LONGEST_REASON = 500
_LONGEST_NAME = 80


async def form(request: Request, keys: Keys) -> dict[str, str]:
    """Return a form's fields.

    Raises:
        HTTPException: it is too large, no form at all, or from nowhere that we know.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "This form is too large.")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=100))
    except ValueError as error:
        raise HTTPException(400, "This is no form.") from error
    if not keys.is_form_token(fields.get("token", ""), request.state.cookie):
        raise HTTPException(403, "This form is too old, or not from here. Go back, load the page anew, and try again.")
    return fields


def person(said: str) -> str:
    """Return a person's name as it is kept.

    Raises:
        HTTPException: there is none, or it is too long.
    """
    name = _one_line(said)
    if not name:
        raise HTTPException(400, "Say who you are: your name is kept in the audit. Go back and fill it in.")
    if len(name) > _LONGEST_NAME:
        raise HTTPException(400, f"The name has {len(name)} characters; at most {_LONGEST_NAME} are kept.")
    return name


def operator(request: Request, keys: Keys, fields: dict[str, str], *, default: str) -> Operator:
    """Return who acts, by the form, by the session, or else by `default`; and why. The session keeps the name.

    Raises:
        HTTPException: no reason is given, or one that is too long.
    """
    cookie = request.state.cookie
    name = person(fields.get("name", "").strip() or keys.name(cookie) or default)
    reason = _one_line(fields.get("reason", ""))
    if not reason:
        raise HTTPException(400, "Say why: the reason is kept in the audit. Go back and fill it in.")
    if len(reason) > _LONGEST_REASON:
        raise HTTPException(400, f"The reason has {len(reason)} characters; at most {_LONGEST_REASON} are kept.")
    keys.know(cookie, name)
    return Operator(f"{name} (console)", reason)


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
