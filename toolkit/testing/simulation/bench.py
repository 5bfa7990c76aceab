"""Runs schedules of the same services one after the other: each on new database files, with engines that are kept."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from datetime import timedelta
from typing import Any

from toolkit.configuration.settings import EMBEDDED, Settings
from toolkit.declaration.service import Service
from toolkit.testing.memory import memory_directory
from toolkit.testing.resources import check_provided, made, provider_of
from toolkit.testing.simulation.kept_database import KeptDatabase
from toolkit.testing.simulation.run import Check, Run, RunResult
from toolkit.testing.simulation.schedule import Schedule
from toolkit.testing.simulation.simulation import simulation

#: Rare polls, since each is a transaction; and an early watch, since a saga that lost its abort has to end, too.
_SETTINGS = {
    "relay_poll": timedelta(minutes=1),
    "watch_every": timedelta(minutes=1),
    "overdue_after": timedelta(minutes=1),
    "nudge_every": timedelta(minutes=1),
    "abort_after": timedelta(minutes=4),
}


class Bench:
    """Runs schedules of these services.

    - `provides`: by type, what makes the objects that steps take: a new one for each run, which outlives crashes.
    - `settings`: fields of `Settings` that differ from the bench's own.
    """

    def __init__(
        self,
        services: Sequence[Service],
        *,
        provides: Mapping[type, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self._services = list(services)
        self._provides = dict(provides or {})
        check_provided(self._provides, self._services)
        self._resources = ExitStack()
        root = self._resources.enter_context(memory_directory("saga-simulation-"))
        self._template, self._directory = root / "template", root / "run"
        own = Settings(data_dir=self._directory, broker_url=EMBEDDED).model_copy(update=_SETTINGS)
        self._settings = own.model_copy(update=dict(settings or {}))
        self._databases = {
            each.name: KeptDatabase(self._settings.database_for(each.name), has_tables=True) for each in self._services
        }
        with simulation(self._with(self._made()), self._settings.model_copy(update={"data_dir": self._template})):
            """The files before the first saga: their tables and their seeds."""

    @property
    def names(self) -> list[str]:
        """The names of the services."""
        return [each.name for each in self._services]

    def run(self, schedule: Schedule, check: Check | None) -> RunResult:
        """Run a schedule, and return what is wrong after it."""
        if self._directory.exists():
            shutil.rmtree(self._directory)
        provided = self._made()
        with (
            _seeded(schedule.seed),
            simulation(
                self._with(provided), self._settings, template=self._template, databases=self._databases
            ) as world,
        ):
            return Run(world, schedule, self._services, provided).result(check)

    def close(self) -> None:
        """Delete the files."""
        self._resources.close()

    def _made(self) -> dict[type, Any]:
        return {kind: made(resource) for kind, resource in self._provides.items()}

    def _with(self, provided: Mapping[type, Any]) -> list[Service]:
        """Return the services with these resources in place of their own."""
        own = {kind: provider_of(resource) for kind, resource in provided.items()}
        return [
            replace(each, provides={kind: own.get(kind, opens) for kind, opens in each.provides.items()})
            for each in self._services
        ]


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Let the jitter of retries be the same in each run of a seed."""
    before = random.getstate()
    random.seed(seed)
    try:
        yield
    finally:
        random.setstate(before)
