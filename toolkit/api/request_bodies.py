"""What is ordered in a body: who asks, why, and of what."""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    Strict,
    StringConstraints,
    ValidationError,
    WithJsonSchema,
)
from pydantic_core import ErrorDetails
from starlette.requests import Request

from toolkit.api.query_parameters import in_utc
from toolkit.api.responses import QueryError
from toolkit.configuration.settings import LONGEST_RETENTION, SHORTEST_RETENTION, Duration
from toolkit.persistence.audit_log import Operator
from toolkit.persistence.dead_letters import Selection

M = TypeVar("M", bound="RequestBody")

#: Text without control characters, of which PostgreSQL can't keep all; written so that JSON Schema can say it, too.
_LINE, _ANY_LINE = r"^[^\x00-\x1f\x7f-\x9f]+$", r"^[^\x00-\x1f\x7f-\x9f]*$"
#: The same, but not blank.
_SENTENCE = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"

#: One line that any database can keep.
Word = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_LINE)]
Moment = Annotated[AwareDatetime, Strict(), AfterValidator(in_utc)]


class RequestBody(BaseModel):
    """What is asked for: who asks, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, StringConstraints(max_length=500, pattern=_SENTENCE)]
    actor: Word = "api"

    @property
    def operator(self) -> Operator:
        """Who acts, and why."""
        return Operator(self.actor, self.reason)


def _says_which(name: str, **how: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: how}}


#: What a body has to hold, one or another of it, to say which letters are meant.
_SOME: list[Any] = [
    _says_which("ids", minItems=1),
    *(_says_which(name, type="string") for name in ("reason_is", "step", "saga", "before")),
    _says_which("all", const=True),
]


class DeadLetterBody(RequestBody):
    """Which dead letters; `all` where nothing else is said, so that nobody means them all by leaving something out."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _SOME})

    ids: tuple[Word, ...] = Field((), max_length=1_000)
    reason_is: Word | None = None
    step: Word | None = None
    saga: Word | None = None
    type: Word | None = None
    before: Moment | None = None
    all: bool = False
    up_to: Word | None = None
    after: Annotated[str, StringConstraints(max_length=64, pattern=_ANY_LINE)] = ""
    dry_run: bool = False

    @property
    def selection(self) -> Selection:
        """The letters that are meant; a type alone names none, since it only tells sagas of one id apart.

        Raises:
            QueryError: none are named.
        """
        if not (self.ids or self.reason_is or self.step or self.saga or self.before or self.all):
            raise QueryError("say which letters: ids, reason_is, step, saga, before, or all")
        return Selection(
            ids=self.ids,
            reason=self.reason_is,
            step=self.step,
            saga_id=self.saga,
            saga_type=self.type,
            before=self.before,
            up_to=self.up_to,
        )


class SagaBody(RequestBody):
    """A replay, a nudge or an abort of one saga; of which `type`, where sagas of several types have its id."""

    type: Word | None = None


#: As people write it; other durations are taken, too.
_AGE = {
    "anyOf": [
        {"type": "string", "pattern": "^[1-9][0-9]{0,3}d$"},
        {
            "type": "number",
            "minimum": SHORTEST_RETENTION.total_seconds(),
            "maximum": LONGEST_RETENTION.total_seconds(),
            "description": "In seconds.",
        },
    ],
    "examples": ["30d"],
}


class PruneBody(RequestBody):
    """How old is old."""

    older_than: Annotated[
        Duration,
        Field(ge=SHORTEST_RETENTION, le=LONGEST_RETENTION),
        WithJsonSchema(_AGE),
    ]


async def body_of(request: Request, kind: type[M]) -> M:
    """Return the order that a request's body holds.

    Raises:
        QueryError: it is none of this kind.
    """
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise QueryError("; ".join(_told(fault) for fault in error.errors())) from error


def _told(fault: ErrorDetails) -> str:
    """Return what is wrong in words: nobody learns from a regular expression what to write."""
    where = ".".join(map(str, fault["loc"])) or "the body"
    if fault["type"] not in ("string_pattern_mismatch", "string_too_short"):
        return f"{where}: {fault['msg']}"
    if not str(fault["input"]).strip():
        return f"{where}: say why" if where == "reason" else f"{where}: it says nothing; leave it out, or name one"
    return f"{where}: write one line, without control characters"
