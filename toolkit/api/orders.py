"""What is ordered in a body: who asks, why, and of what."""

from __future__ import annotations

from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
)
from starlette.requests import Request

from toolkit.api.answers import QueryError
from toolkit.api.queries import in_utc
from toolkit.audit import Operator
from toolkit.dead_letters import Selection
from toolkit.settings import LONGEST_RETENTION, SHORTEST_RETENTION, Duration

M = TypeVar("M", bound="Order")

#: One line that any database can keep.
Word = Annotated[str, StringConstraints(min_length=1, max_length=500, pattern=r"^\P{Cc}+$")]
Moment = Annotated[AwareDatetime, AfterValidator(in_utc)]


class Order(BaseModel):
    """What is asked for: who asks, and why."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^\P{Cc}*[^\s\p{Cc}]\P{Cc}*$")]
    actor: Word = "api"

    @property
    def operator(self) -> Operator:
        """Who acts, and why."""
        return Operator(self.actor, self.reason)


class Letters(Order):
    """Which dead letters; `all` where nothing else is said, so that nobody means them all by leaving something out."""

    ids: tuple[Word, ...] = Field((), max_length=1_000)
    reason_is: Word | None = None
    step: Word | None = None
    saga: Word | None = None
    before: Moment | None = None
    all: bool = False
    up_to: Word | None = None
    after: Annotated[str, StringConstraints(max_length=64, pattern=r"^\P{Cc}*$")] = ""
    dry_run: bool = False

    @property
    def selection(self) -> Selection:
        """The letters that are meant.

        Raises:
            QueryError: none are named.
        """
        if not (self.ids or self.reason_is or self.step or self.saga or self.before or self.all):
            raise QueryError("say which letters: ids, reason_is, step, saga, before, or all")
        return Selection(
            ids=self.ids, reason=self.reason_is, step=self.step, saga_id=self.saga, before=self.before, up_to=self.up_to
        )


class Push(Order):
    """A nudge or an abort of one saga."""


class Replay(Order):
    """A replay; a reason is welcome, and not needed for what changes nothing."""

    reason: Annotated[str, StringConstraints(max_length=500, pattern=r"^\P{Cc}*$")] = ""


class Prune(Order):
    """How old is old."""

    older_than: Annotated[Duration, Field(ge=SHORTEST_RETENTION, le=LONGEST_RETENTION)]


async def order_of(request: Request, kind: type[M]) -> M:
    """Return the order that a request's body holds.

    Raises:
        QueryError: it is none of this kind.
    """
    try:
        return kind.model_validate_json(await request.body())
    except ValidationError as error:
        faults = (f"{'.'.join(map(str, fault['loc'])) or 'the body'}: {fault['msg']}" for fault in error.errors())
        raise QueryError("; ".join(faults)) from error
