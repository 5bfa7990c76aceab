"""Request bodies: the operation's target, its operator and the reason."""

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

#: Text without control characters, which PostgreSQL stores in part only; a pattern that JSON Schema supports, too.
_LINE, _ANY_LINE = r"^[^\x00-\x1f\x7f-\x9f]+$", r"^[^\x00-\x1f\x7f-\x9f]*$"
#: The same, but not blank.
_SENTENCE = r"^[^\x00-\x1f\x7f-\x9f]*[^\s\x00-\x1f\x7f-\x9f][^\x00-\x1f\x7f-\x9f]*$"

#: One line that each database can store.
Word = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=_LINE)]
Moment = Annotated[AwareDatetime, Strict(), AfterValidator(in_utc)]


class RequestBody(BaseModel):
    """An operation with its operator and reason."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, StringConstraints(max_length=500, pattern=_SENTENCE)]
    actor: Word = "api"

    @property
    def operator(self) -> Operator:
        """The operator and the reason, for the audit."""
        return Operator(self.actor, self.reason)


def _requires(name: str, **how: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: how}}


#: The alternative fields that select dead letters; a body needs one of them.
_SELECTORS: list[Any] = [
    _requires("ids", minItems=1),
    *(_requires(name, type="string") for name in ("reason_is", "step", "saga", "before")),
    _requires("all", const=True),
]


class DeadLetterBody(RequestBody):
    """A selection of dead letters; `all` is explicit, so that a missing field never selects all of them."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _SELECTORS})

    ids: tuple[Word, ...] = Field(default=(), max_length=1_000)
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
        """The selected dead letters; a type alone selects none, it only distinguishes sagas with one id.

        Raises:
            QueryError: the body selects none.
        """
        if not (self.ids or self.reason_is or self.step or self.saga or self.before or self.all):
            raise QueryError("select dead letters by ids, reason_is, step, saga, before, or all")
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
    """A replay, a nudge or an abort of one saga; `type` is needed when sagas of several types have its id."""

    type: Word | None = None


class AnswerBody(SagaBody):
    """An answer's fields, all but the saga's id, and who answers, and why."""

    fields: dict[str, Any] = Field(default_factory=dict)


#: The usual notation; other durations are accepted, too.
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
    """The age from which sagas and dead letters are pruned."""

    older_than: Annotated[
        Duration,
        Field(ge=SHORTEST_RETENTION, le=LONGEST_RETENTION),
        WithJsonSchema(_AGE),
    ]


async def body_of(request: Request, kind: type[M]) -> M:
    """Return a request's body.

    Raises:
        QueryError: it does not match the model.
    """
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        raise QueryError("; ".join(_description_of(fault) for fault in error.errors())) from error


def _description_of(fault: ErrorDetails) -> str:
    """Return the fault in words, without the regular expressions of pydantic's message."""
    where = ".".join(map(str, fault["loc"])) or "the body"
    if fault["type"] not in ("string_pattern_mismatch", "string_too_short"):
        return f"{where}: {fault['msg']}"
    if not str(fault["input"]).strip():
        return f"{where}: give a reason" if where == "reason" else f"{where}: it is blank; leave it out, or name one"
    return f"{where}: write one line, without control characters"
