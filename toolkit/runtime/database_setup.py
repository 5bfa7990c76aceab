"""Prepares a service's database at its start: waits for it, makes and seeds the tables, and checks the log's steps."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Any

import structlog
from sqlalchemy import MetaData
from sqlalchemy.exc import DBAPIError, ResourceClosedError
from tenacity import AsyncRetrying, retry_if_exception, wait_exponential_jitter

from toolkit.configuration.settings import Settings
from toolkit.declaration.service import Service
from toolkit.errors import SettingsError, UndeclaredStepsError, describe
from toolkit.persistence import known_steps
from toolkit.persistence.database import Database
from toolkit.persistence.database_errors import (
    cure_of,
    describe_fault,
    is_misconfigured,
    is_outage,
    is_refusal,
    is_unusable,
)
from toolkit.persistence.postgres_tls import tls_fault
from toolkit.persistence.sqlite_files import readable_by_others
from toolkit.runtime.seeding import run_seed

log = structlog.get_logger("toolkit")

#: The pauses between two tries to reach a database that is away.
PATIENCE = wait_exponential_jitter(multiplier=0.1, max=2)


class DatabaseSetup:
    """Prepares one service's database."""

    def __init__(self, service: Service, settings: Settings, database: Database) -> None:
        self._service = service
        self._settings = settings
        self._database = database

    async def prepare(self) -> frozenset[tuple[str, str]]:
        """Prepare it, and return the former steps of this service in the log: saga type and step name.

        Raises:
            SettingsError: the settings name a database that can't be used.
            DeclarationError: the seed uses a table that the service does not declare.
            SeedError: the seed failed for another reason than an outage.
            SchemaVersionError: the toolkit's tables are not those of this release.
            UndeclaredStepsError: a saga is under way at a step that this release does not declare.
        """
        try:
            former_steps = await self._make_tables_patiently()
            self._warn_of_readers()
        except (DBAPIError, OSError) as error:
            if is_unusable(error):
                raise SettingsError(
                    f"the database {self._database.engine.url.database} can't be used: {describe_fault(error)}; "
                    "name another, or another directory, in SAGA_DATA_DIR for example"
                ) from error
            if is_misconfigured(error):
                fault = describe_fault(error)
                cure = "" if tls_fault(error) else "; mend its parameters"
                raise SettingsError(f"SAGA_DATABASE_URL can't be used: {fault}{cure}") from error
            raise
        return former_steps

    async def _make_tables_patiently(self) -> frozenset[tuple[str, str]]:
        async for attempt in AsyncRetrying(
            wait=PATIENCE, retry=retry_if_exception(_is_worth_waiting), before_sleep=self._log_wait, reraise=True
        ):
            with attempt:
                await self._create([self._service.tables] if self._service.tables is not None else [])
                former_steps = await self._former_steps()
                await run_seed(self._service, self._database, is_worth_waiting=_is_worth_waiting)
        return former_steps

    async def _create(self, tables: Sequence[MetaData]) -> None:
        try:
            await self._database.create_tables(
                *tables, service=self._service.name, may_create=self._settings.create_tables
            )
        except DBAPIError as error:
            if is_outage(error) or is_unusable(error) or is_misconfigured(error):
                raise
            raise SettingsError(f"the tables can't be made: {describe_fault(error)}; {cure_of(error)}") from error

    async def _former_steps(self) -> frozenset[tuple[str, str]]:
        """Return the steps in the log that this release does not declare, for example under their old names."""
        async with self._database.transaction() as session:
            found = await known_steps.undeclared(await session.connection(), self._service)
        own = [each for service, each in found if service == self._service.name]
        for service, each in found:
            log.warning(
                "the log holds a step that is not declared",
                service=self._service.name,
                of_service=service,
                saga_type=each.saga_type,
                step=each.step,
                unfinished=each.unfinished,
                cure="give the step its old name back; else late events of its sagas are ignored until they are pruned",
            )
        unfinished = [each for each in own if each.unfinished]
        if unfinished and not self._settings.allow_undeclared_steps:
            raise UndeclaredStepsError(
                f"{self._service.name} does not start: sagas are under way at steps that it does not declare: "
                f"{', '.join(map(str, unfinished))}; nothing could undo them. Declare them under their old names until "
                "these sagas have ended, or set SAGA_ALLOW_UNDECLARED_STEPS=true, and see to them by hand"
            )
        return frozenset((each.saga_type, each.step) for each in own)

    def _warn_of_readers(self) -> None:
        """Warn of a database file that others may read; its mode stays, since it may be shared on purpose."""
        path = self._database.engine.url.database
        if files := list(readable_by_others(path)) if self._database.is_sqlite else []:
            log.warning(
                "others may read the database's files",
                service=self._service.name,
                files=files,
                cure=f"chmod 600 {shlex.join(files)}",
            )

    def _log_wait(self, state: Any) -> None:
        error = state.outcome.exception()
        if is_refusal(error):  # an operator may mend it meanwhile
            cure = "mend the login or the database's name in SAGA_DATABASE_URL"
            log.error("the database refuses us", service=self._service.name, error=describe(error.orig), cure=cure)
        elif isinstance(error, ResourceClosedError):
            cure = "where PgBouncer is in between, set its pool_mode to transaction or session"
            log.warning("waiting for the database", service=self._service.name, error=str(error), cure=cure)
        else:
            log.warning("waiting for the database", service=self._service.name, error=describe_fault(error))


def _is_worth_waiting(error: BaseException) -> bool:
    is_closed = isinstance(error, ResourceClosedError)  # the session ended within a transaction
    return is_closed or (is_outage(error) and not is_unusable(error) and not is_misconfigured(error))
