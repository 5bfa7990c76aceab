"""Reading a form: small, from a page of ours, and with a reason that can be kept."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from toolkit.audit import Operator
from toolkit.console.guard import MOST_BYTES, Keys

#: As the services take it; a reason is a sentence, no report.
_LONGEST_REASON = 500


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


def operator(fields: dict[str, str], actor: str) -> Operator:
    """Return who acts, and why.

    Raises:
        HTTPException: no reason is given, or one that is too long.
    """
    reason = " ".join("".join(each if each.isprintable() else " " for each in fields.get("reason", "")).split())
    if not reason:
        raise HTTPException(400, "Say why: the reason is kept in the audit. Go back and fill it in.")
    if len(reason) > _LONGEST_REASON:
        raise HTTPException(400, f"The reason has {len(reason)} characters; at most {_LONGEST_REASON} are kept.")
    return Operator(actor, reason)
