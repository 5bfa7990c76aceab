"""A team's own Alembic neither drops nor repeats the toolkit's tables, in a project that Alembic itself set up."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service_databases import database_url
from toolkit.persistence.database import Database

__all__ = ["database_url"]

MODELS = """
from sqlalchemy import Column, ForeignKey, Integer, MetaData, String, Table
from toolkit.persistence.schema import metadata as of_toolkit

metadata = MetaData()
audit = Table("audit", metadata, Column("id", Integer, primary_key=True), Column("what", String, index=True))
outbox = Table("outbox", metadata, Column("id", ForeignKey("audit.id"), primary_key=True))
"""

#: What a team adds to the `env.py` that Alembic wrote.
ENV = """
from models import metadata, of_toolkit
from toolkit.alembic import include

target_metadata = {target}
"""

OWN_HOOK = """
def hook(item, name, kind, reflected, compare_to):
    return include(item, name, kind, reflected, compare_to) and name != "scratch"
"""


class Project:
    """A directory with a team's migrations."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        driver = url.replace("sqlite:", "sqlite+aiosqlite:").replace("postgresql:", "postgresql+asyncpg:")
        self("init", "--template", "async", "migrations")
        ini = directory / "alembic.ini"
        ini.write_text(ini.read_text().replace("driver://user:pass@localhost/dbname", driver))
        (directory / "models.py").write_text(MODELS)
        self._env = (directory / "migrations" / "env.py").read_text()

    def configure(self, target: str, *, hook: str | None, own: str = "") -> None:
        """Write the project's `env.py`."""
        env = self._env.replace("target_metadata = None\n", ENV.format(target=target) + own)
        if hook:
            env = env.replace(
                "target_metadata=target_metadata", f"target_metadata=target_metadata, include_object={hook}"
            )
        (self._directory / "migrations" / "env.py").write_text(env)

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run Alembic."""
        return subprocess.run(
            [sys.executable, "-m", "alembic", *arguments],
            cwd=self._directory, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False,
        )  # fmt: skip

    def revision(self) -> str:
        """Let Alembic write a revision, and return it."""
        written = self("revision", "--autogenerate", "-m", "own tables")
        assert written.returncode == 0, written.stderr
        (path,) = (self._directory / "migrations" / "versions").glob("*_own_tables.py")
        return path.read_text()


@pytest.fixture
async def project(database_url: str, tmp_path: Path) -> Project:
    """A team's project on a database in which a service has run."""
    database = Database(database_url)
    await database.create_tables()
    await database.close()
    (tmp_path / "project").mkdir()
    return Project(tmp_path / "project", database_url)


@pytest.mark.parametrize("target", ["metadata", "[metadata, of_toolkit]"])
def test_autogenerate_passes_over_the_toolkits_tables(project: Project, target: str) -> None:
    project.configure(target, hook="include")

    revision = project.revision()
    applied = project("upgrade", "head")
    again = project("check")

    assert "saga_" not in revision
    assert {"audit", "outbox"} == {
        each for each in ("audit", "outbox", "waits") if f"create_table('{each}'" in revision
    }
    assert applied.returncode == 0, applied.stderr
    assert again.returncode == 0, again.stderr
    assert "No new upgrade operations detected" in again.stdout + again.stderr


def test_a_teams_own_hook_calls_the_toolkits(project: Project) -> None:
    project.configure("metadata", hook="hook", own=OWN_HOOK)

    assert "saga_" not in project.revision()


def test_without_the_hook_autogenerate_drops_the_tables(project: Project) -> None:
    project.configure("metadata", hook=None)

    assert "op.drop_table('saga_log')" in project.revision()
