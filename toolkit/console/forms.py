"""Read a form: small, from one of the console's own pages, with the operator's name and a reason for the audit."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from toolkit.console.guard import MOST_BYTES, SessionKeys
from toolkit.persistence.audit_log import Operator

#: The services' own limit: a reason is one sentence.
_LONGEST_REASON = 500
_LONGEST_NAME = 80


async def form(request: Request, keys: SessionKeys) -> dict[str, str]:
    """Return a form's fields.

    Raises:
        HTTPException: it is too large, no form, or not from one of the console's pages.
    """
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise HTTPException(413, "This form is too large.")
    try:
        fields = dict(parse_qsl(body.decode(), keep_blank_values=True, strict_parsing=bool(body), max_num_fields=100))
    except ValueError as error:
        raise HTTPException(400, "The request body is not a form.") from error
    if not keys.is_form_token(fields.get("token", ""), request.state.cookie):
        raise HTTPException(
            403, "This form has expired, or comes from another site. Go back, reload the page, and try again."
        )
    return fields


def person(text: str) -> str:
    """Return a person's name as the audit keeps it.

    Raises:
        HTTPException: the name is empty or too long.
    """
    name = _one_line(text)
    if not name:
        raise HTTPException(400, "Your name is missing; the audit keeps it. Go back and fill it in.")
    if len(name) > _LONGEST_NAME:
        raise HTTPException(400, f"The name has {len(name)} characters; at most {_LONGEST_NAME} are allowed.")
    return name


def operator(request: Request, keys: SessionKeys, fields: dict[str, str], *, default: str) -> Operator:
    """Return the operator and the reason; the name is the form's, else the session's, else `default`.

    The session keeps the name for the next form.

    Raises:
        HTTPException: the reason is empty or too long.
    """
    cookie = request.state.cookie
    name = person(fields.get("name", "").strip() or keys.name(cookie) or default)
    reason = _one_line(fields.get("reason", ""))
    if not reason:
        raise HTTPException(400, "The reason is missing; the audit keeps it. Go back and fill it in.")
    if len(reason) > _LONGEST_REASON:
        raise HTTPException(400, f"The reason has {len(reason)} characters; at most {_LONGEST_REASON} are allowed.")
    keys.keep_name(cookie, name)
    return Operator(f"{name} (console)", reason)


def _one_line(text: str) -> str:
    return " ".join("".join(each if each.isprintable() else " " for each in text).split())
