"""Checks of each service's database: it answers, keeps what it committed, and has room."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from toolkit.doctor.facts import DatabaseFacts, Facts
from toolkit.doctor.findings import Observation, advice, check, fine, problem, unchecked
from toolkit.persistence.postgres import MOST_CONNECTIONS

#: PRAGMA synchronous: FULL and EXTRA.
_SAFE_SYNCHRONOUS = ("2", "3")
_SAFE_JOURNALS = ("wal", "delete", "truncate", "persist")
#: File systems that lose SQLite's files, or its locks: each with what is wrong, and where.
_UNSAFE = dict.fromkeys(("tmpfs", "ramfs"), "is in memory") | dict.fromkeys(
    ("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "ceph", "glusterfs", "afs", "fuse.sshfs", "fuse.glusterfs"),
    "is on a network, where SQLite's locks may not hold",
)
#: The layer of a container, which is removed with it.
_CONTAINER_LAYERS = ("overlay", "aufs")
#: PostgreSQL's parameters that trade durability for speed.
_DURABLE = ("synchronous_commit", "fsync", "full_page_writes")
#: Bytes: 200 MB are some 100,000 sagas.
_LITTLE = 200_000_000


def answering(facts: Facts) -> Iterator[DatabaseFacts]:
    """Yield the databases that answer."""
    return (each for each in facts.databases if each.fault is None)


def _postgres(facts: Facts) -> Iterator[DatabaseFacts]:
    return (each for each in answering(facts) if not each.is_sqlite)


@check(
    "database",
    why="the service acknowledges and executes no message until it answers",
    cure="start PostgreSQL, or correct SAGA_DATABASE_URL or SAGA_DATA_DIR; `saga run {service}` creates an SQLite file",
)
def databases(facts: Facts) -> Iterator[Observation]:
    """A connection as the service makes it. A missing SQLite file is not created."""
    for each in facts.databases:
        if each.fault:
            yield unchecked(f"{each.server}: {each.fault}", each.service)
        else:
            yield fine("SQLite" if each.is_sqlite else "PostgreSQL", each.service)


@check(
    "SQLite durability",
    why="a power cut or a restart loses committed and acknowledged messages, and their sagas stay unfinished",
    cure="stop the service, move the file to a disk of this machine, and name its directory in SAGA_DATA_DIR; or use "
    "PostgreSQL: SAGA_DATABASE_URL=postgresql://…",
)
def sqlite_durability(facts: Facts) -> Iterator[Observation]:
    """`PRAGMA synchronous` and `PRAGMA journal_mode` of the toolkit's own connection; on Linux, the file system.

    Memory and networks are problems, a container's own layer gets advice.
    """
    for each in answering(facts):
        if not each.is_sqlite:
            continue
        synchronous, journal = each.settings["synchronous"], each.settings["journal_mode"]
        if synchronous not in _SAFE_SYNCHRONOUS or journal not in _SAFE_JOURNALS:
            found = f"{each.server} has synchronous={synchronous}, journal_mode={journal}"
            yield problem(found, each.service, "PRAGMA synchronous=FULL; PRAGMA journal_mode=WAL")
        elif each.filesystem in _UNSAFE:
            yield problem(f"{each.server} {_UNSAFE[each.filesystem]} ({each.filesystem})", each.service)
        elif each.filesystem in _CONTAINER_LAYERS:
            found = f"{each.server} is in a container's own layer ({each.filesystem}), and is removed with it"
            yield advice(found, each.service, "mount a volume there, and name it in SAGA_DATA_DIR")
        else:
            yield fine(f"synchronous=FULL, journal_mode={journal}", each.service)


@check(
    "PostgreSQL durability",
    why="a power cut loses committed and acknowledged messages, and their sagas stay unfinished",
    cure="`ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()`, or `ALTER … RESET {name}` for a database or a login",
)
def postgres_durability(facts: Facts) -> Iterator[Observation]:
    """`synchronous_commit`, `fsync` and `full_page_writes` in the service's own session, and their sources."""
    for each in _postgres(facts):
        off = [name for name in _DURABLE if each.settings.get(name) == "off"]
        for name in off:
            yield problem(f"{name} is off in {each.server}", each.service, _reset(name, each))
        if not off:
            yield fine("each commit reaches the disk", each.service)


def _reset(name: str, database: DatabaseFacts) -> str:
    """Return the statement that undoes a setting where it was made."""
    role, place = f'ROLE "{database.login}"', f'DATABASE "{database.database}"'
    where = {"database": place, "user": role, "database user": f"{role} IN {place}"}.get(database.sources.get(name, ""))
    return f"ALTER {where} RESET {name}" if where else f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"


@check(
    "disk space",
    why="on a full disk no transaction commits",
    cure="free space, or `saga prune --older-than 30d --reason TEXT`",
)
def disk_space(facts: Facts) -> Iterator[Observation]:
    """The free space beside an SQLite file: less than 200 MB is a problem."""
    for each in answering(facts):
        if each.free_bytes is not None and each.free_bytes < _LITTLE:
            yield problem(f"{each.free_bytes / 1_000_000:.0f} MB are free beside {each.server}", each.service)
        elif each.free_bytes is not None:
            yield fine("there is room to grow", each.service)


@check(
    "connections",
    why="under load the server refuses connections, and all messages wait",
    cure="`ALTER SYSTEM SET max_connections = {limit}`, and restart PostgreSQL",
)
def connections(facts: Facts) -> Iterator[Observation]:
    """`max_connections` and the limits of login and database: each service's pool may need 30 connections."""
    servers: dict[str, list[DatabaseFacts]] = defaultdict(list)
    for each in _postgres(facts):
        servers[each.server].append(each)
        yield from _own_limits(each)
    for server, pools in servers.items():
        wanted, left = MOST_CONNECTIONS * len(pools), min(each.connections["max_connections"] for each in pools)
        if wanted > left:
            found = (
                f"{server} has {left} connections; the pools of {', '.join(each.service for each in pools)} may need "
                f"{wanted}, and as many again for each replica"
            )
            yield problem(found, fields={"limit": wanted * 2 + 20})
        else:
            yield fine(f"{server} has {left} connections for pools of {wanted}")


def _own_limits(database: DatabaseFacts) -> Iterator[Observation]:
    for name, left in database.connections.items():
        if name != "max_connections" and left < MOST_CONNECTIONS:
            whose = f'ROLE "{database.login}"' if "login" in name else f'DATABASE "{database.database}"'
            found = f"{name} is {left} connections, and the pool may need {MOST_CONNECTIONS}"
            cure = f"ALTER {whose} CONNECTION LIMIT {MOST_CONNECTIONS * 2}, or -1 for none"
            yield problem(found, database.service, cure)


@check(
    "database password",
    why="every client that reaches the server can read and change every saga",
    cure="`ALTER ROLE \"{login}\" PASSWORD '…'`; in pg_hba.conf scram-sha-256 instead of trust",
    is_probe=True,
)
def passwords(facts: Facts) -> Iterator[Observation]:
    """Logins with a random password, and with their name as a password: that of the service, and `postgres`.

    A problem if the server is on another machine, else advice.
    """
    for each in _postgres(facts):
        observe = advice if each.is_local else problem
        for login in each.open_logins:
            fields = {"login": login.partition(",")[0]}
            yield observe(f"{each.server} accepts {login}", each.service, fields=fields)
        if not each.open_logins:
            yield fine("no well-known password is accepted", each.service)
