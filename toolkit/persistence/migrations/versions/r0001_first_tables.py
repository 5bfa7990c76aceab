"""The tables of the releases before the prefix, which had no version."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision, down_revision = "0001", None

_KEY = sa.String().with_variant(sa.String(collation="C"), "postgresql")
_TIME = sa.DateTime(timezone=True)
_NUMBER = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_CONTRADICTS = sa.text("to_state = 'ended' AND error IS NOT NULL")
_GATHERING = sa.text("to_state = 'gathering'")


def upgrade() -> None:
    """Create the tables."""
    _saga_log()
    _messages()
    _overdue_sagas()
    _of_the_service()


def _saga_log() -> None:
    _create(
        "saga_log",
        sa.Column("id", _NUMBER, primary_key=True, autoincrement=True),
        *(_needed("service", sa.String()), _needed("saga_id", _KEY), _needed("saga_type", _KEY), _needed("step", _KEY)),
        *(sa.Column("position", sa.Integer()), sa.Column("from_state", sa.String())),
        *(_needed("to_state", sa.String()), _needed("saga_state", sa.String())),
        *(sa.Column("event_id", sa.String()), sa.Column("event_type", sa.String())),
        *(sa.Column("event_version", sa.Integer()), sa.Column("event_body", sa.Text())),
        *(sa.Column("event_by", sa.String()), sa.Column("emitted_id", sa.String())),
        *(sa.Column("emitted_type", sa.String()), sa.Column("emitted_version", sa.Integer())),
        *(sa.Column("emitted_body", sa.Text()), _needed("attempt", sa.Integer()), sa.Column("error", sa.Text())),
        *(sa.Column("deadline", _TIME), sa.Column("traceparent", sa.String()), sa.Column("started_at", _TIME)),
        _needed("at", _TIME),
        sa.UniqueConstraint("saga_id", "saga_type", "step", "position", name="saga_log_fence"),
    )
    _index("saga_log_by_time", "saga_log", "at")
    _index("saga_log_contradictions", "saga_log", "saga_id", where=_CONTRADICTS)
    _index("saga_log_gathering", "saga_log", "id", where=_GATHERING)


def _messages() -> None:
    _create(
        "outbox",
        sa.Column("id", _KEY, primary_key=True),
        *(_needed("message_id", sa.String()), _needed("saga_id", sa.String()), _needed("event_type", sa.String())),
        *(_needed("routing_key", sa.String()), sa.Column("destination", sa.String()), _needed("occurred_at", _TIME)),
        *(_needed("headers", sa.Text()), _needed("body", sa.LargeBinary()), _needed("optional", sa.Integer())),
        *(_needed("due_at", _TIME), _needed("tries", sa.Integer())),
    )
    _index("outbox_by_due", "outbox", "due_at")
    _create(
        "dead_letters",
        sa.Column("id", sa.String(), primary_key=True),
        *(_needed("service", sa.String()), _needed("reason", sa.String()), _needed("error", sa.Text())),
        *(sa.Column("traceback", sa.Text()), sa.Column("saga_type", _KEY), sa.Column("saga_id", _KEY)),
        *(sa.Column("step", _KEY), sa.Column("event_type", sa.String()), sa.Column("message_id", sa.String())),
        *(_needed("routing_key", sa.String()), sa.Column("sent_at", _TIME), _needed("headers", sa.Text())),
        *(_needed("body", sa.LargeBinary()), _needed("attempts", sa.Integer()), _needed("first_at", _TIME)),
        *(_needed("last_at", _TIME), sa.Column("fingerprint", sa.String(), nullable=False, unique=True)),
    )
    _index("dead_letters_by_saga", "dead_letters", "saga_id")
    _index("dead_letters_by_time", "dead_letters", "last_at")
    _create(
        "suspects",
        sa.Column("id", sa.String(), primary_key=True),
        *(_needed("marks", sa.Integer()), _needed("at", _TIME)),
    )


def _overdue_sagas() -> None:
    _create(
        "overdue",
        *_of_step(),
        *(_needed("position", sa.Integer()), _needed("state", sa.String()), _needed("saga_state", sa.String())),
        *(_needed("since", _TIME), _needed("next_at", _TIME)),
        *(_needed("nudges", sa.Integer()), _needed("aborted", sa.Integer())),
    )
    _index("overdue_by_saga", "overdue", "saga_id")
    _index("ix_overdue_next_at", "overdue", "next_at")
    _create("waits", *_of_step(), _needed("until", _TIME))
    _index("ix_waits_until", "waits", "until")
    _create("watched", sa.Column("id", sa.Integer(), primary_key=True), _needed("until", _TIME))


def _of_the_service() -> None:
    _create(
        "audit",
        sa.Column("id", sa.String(), primary_key=True),
        *(_needed("at", _TIME), _needed("actor", sa.String()), _needed("verb", sa.String())),
        *(_needed("reason", sa.Text()), sa.Column("saga_type", sa.String()), sa.Column("saga_id", sa.String())),
        _needed("subject", sa.Text()),
    )
    _index("audit_by_time", "audit", "at")
    _create("pruned", sa.Column("id", sa.Integer(), primary_key=True), _needed("until", _TIME))
    _create(
        "known_steps", *(sa.Column(each, sa.String(), primary_key=True) for each in ("service", "saga_type", "step"))
    )
    _create(
        "bindings",
        *(sa.Column(each, sa.String(), primary_key=True) for each in ("routing_key", "holder")),
        *(_needed("at", _TIME), _needed("unbound", sa.Integer())),
    )


def _of_step() -> list[sa.Column[str]]:
    return [sa.Column(each, _KEY, primary_key=True) for each in ("saga_type", "saga_id", "step")]


def _needed(name: str, kind: sa.types.TypeEngine[Any]) -> sa.Column[Any]:
    return sa.Column(name, kind, nullable=False)


def _create(name: str, *parts: sa.schema.SchemaItem) -> None:
    op.create_table(name, *parts, schema=op.get_context().version_table_schema, if_not_exists=True)


def _index(name: str, table: str, column: str, *, where: sa.TextClause | None = None) -> None:
    op.create_index(
        name,
        table,
        [column],
        schema=op.get_context().version_table_schema,
        if_not_exists=True,
        sqlite_where=where,
        postgresql_where=where,
    )
