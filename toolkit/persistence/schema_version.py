"""The version of the toolkit's tables in a database: the revision that made them, and whether this release fits it.

A service starts only on the tables of its own release. `saga db upgrade` runs the revisions, by Alembic, which keeps
the version in the same row; a service imports no Alembic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Column, PrimaryKeyConstraint, String, Table, delete, insert, inspect, select
from sqlalchemy.engine import Connection

from toolkit.errors import SchemaVersionError
from toolkit.persistence.schema import metadata, schema_of

#: The revisions in their order, as Alembic's scripts have them.
REVISIONS = ("0001", "0002")
HEAD = REVISIONS[-1]

#: One row, in the form of Alembic's own table of versions.
version = Table(
    "saga_schema_version",
    metadata,
    Column("version_num", String(32), nullable=False),
    PrimaryKeyConstraint("version_num", name="saga_schema_version_pkc"),
)

#: Two tables of the releases before versions, of which the second got its prefix in revision 0002.
_LOG, _OUTBOX = "saga_log", "outbox"


class VersionState(StrEnum):
    """How the tables in a database fit this release."""

    CURRENT = "current"
    OUTDATED = "outdated"
    NEWER = "newer"
    """A release that this one does not know made them."""
    UNRECORDED = "unrecorded"
    """They are there, and no version is recorded."""
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class SchemaVersion:
    """The version of the tables in a database; None where it is not recorded and can't be inferred."""

    number: str | None
    state: VersionState


def read_version(connection: Connection) -> SchemaVersion:
    """Read the version of the tables; those of a release without versions are recognized by their names."""
    existing = set(inspect(connection).get_table_names(schema=schema_of(connection.dialect)))
    recorded = connection.scalar(select(version.c.version_num)) if version.name in existing else None
    if recorded is not None:
        return SchemaVersion(recorded, _state_of(recorded))
    if {_LOG, _OUTBOX} <= existing and f"saga_{_OUTBOX}" not in existing:
        return SchemaVersion(REVISIONS[0], VersionState.OUTDATED)
    is_there = not existing.isdisjoint(set(metadata.tables) - {version.name})
    return SchemaVersion(None, VersionState.UNRECORDED if is_there else VersionState.MISSING)


def check_version(found: SchemaVersion, *, place: str, service: str) -> None:
    """Check that a release can use existing tables.

    Raises:
        SchemaVersionError: it can't; the text names the command that mends it.
    """
    command = f"`saga db upgrade {service}`"
    if found.state is VersionState.OUTDATED:
        raise SchemaVersionError(
            f"the toolkit's tables in {place} have version {found.number}, and this release needs {HEAD}: stop all "
            f"processes of {service}, and run {command}"
        )
    if found.state is VersionState.NEWER:
        raise SchemaVersionError(
            f"a newer release made the toolkit's tables in {place}: they have version {found.number}, and this release "
            f"knows {REVISIONS[0]} to {HEAD}; run that release again, or a later one"
        )
    if found.state is VersionState.UNRECORDED:
        raise SchemaVersionError(
            f"the toolkit's tables in {place} have no recorded version: run {command}, which compares them with this "
            f"release and records {HEAD}"
        )


def record_version(connection: Connection) -> None:
    """Record that the tables are those of this release."""
    connection.execute(delete(version))
    connection.execute(insert(version).values(version_num=HEAD))


def _state_of(recorded: str) -> VersionState:
    if recorded == HEAD:
        return VersionState.CURRENT
    return VersionState.OUTDATED if recorded in REVISIONS else VersionState.NEWER
