"""The lock files' check finds lines without a version or a hash."""

from packaging.requirements import Requirement

from tests.lock_files import problems_of

HASH = f"--hash=sha256:{64 * '0'}"


def test_an_extra_without_a_pin_is_found():
    lock = f"pytest-cov==7.0 \\\n    {HASH}\ncoverage==7.17 \\\n    {HASH}\n"
    installed = {"pytest-cov": [Requirement("coverage[toml]>=7.10")]}

    (problem,) = problems_of(lock, installed)

    assert problem == "pytest-cov needs coverage[toml], which is pinned without that extra; run `make lock`"


def test_a_pinned_extra_is_no_problem():
    lock = f"pytest-cov==7.0 \\\n    {HASH}\ncoverage[toml]==7.17 \\\n    {HASH}\n"
    installed = {"pytest-cov": [Requirement("coverage[toml]>=7.10")]}

    assert problems_of(lock, installed) == []


def test_a_requirement_that_no_line_pins_is_found():
    installed = {"sqlmodel": [Requirement("sqlalchemy>=2"), Requirement("pywin32>=1; sys_platform == 'win32'")]}

    (problem,) = problems_of(f"sqlmodel==0.0.50 {HASH}\n", installed)

    assert problem == "sqlmodel needs sqlalchemy, which is not pinned; run `make lock`"


def test_what_an_extra_brings_has_to_be_pinned():
    installed = {"sqlalchemy": [Requirement("greenlet>=1; extra == 'asyncio'")]}

    assert problems_of(f"sqlalchemy==2.1 {HASH}\n", installed) == []
    assert problems_of(f"sqlalchemy[asyncio]==2.1 {HASH}\n", installed) == [
        "sqlalchemy needs greenlet, which is not pinned; run `make lock`"
    ]


def test_a_line_without_version_or_hash_is_found():
    assert problems_of(f"rich>=14 {HASH}\ntyper==0.20\n", {}) == [
        "rich>=14 has no exact version or no hash; run `make lock`",
        "typer==0.20 has no exact version or no hash; run `make lock`",
    ]
