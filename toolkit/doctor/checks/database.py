"""Whether each service's database keeps what was committed, and has all that the code expects."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from toolkit.doctor.facts import DatabaseFacts, Facts
from toolkit.doctor.findings import Seen, advice, check, fine, problem, unchecked
from toolkit.persistence.postgres import MOST_CONNECTIONS

#: PRAGMA synchronous: as FULL, or more.
_SAFE_SYNCHRONOUS = ("2", "3")
_SAFE_JOURNALS = ("wal", "delete", "truncate", "persist")
_IN_MEMORY = ("tmpfs", "ramfs")
#: Where the locks that SQLite lives by may not hold, and WAL does not work between machines.
_OVER_A_NETWORK = (
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "afs",
    "fuse.sshfs",
    "fuse.glusterfs",
)
#: What PostgreSQL may be told to do without.
_DURABLE = ("synchronous_commit", "fsync", "full_page_writes")
#: Containers' own layer, which goes with them.
_WITH_THE_CONTAINER = ("overlay", "aufs")
#: Less is a full disk soon: 200 MB are some 100,000 sagas.
_LITTLE = 200_000_000


def answering(facts: Facts) -> Iterator[DatabaseFacts]:
    """Yield the databases that answer."""
    return (each for each in facts.databases if each.fault is None)


@check("database", why="nothing is acknowledged, and nothing goes on, until it answers")
def databases(facts: Facts) -> Iterator[Seen]:
    """Each database answers."""
    for each in facts.databases:
        if each.fault:
            cure = (
                f"saga run {each.service} makes it; or mend SAGA_DATA_DIR or SAGA_DATABASE_URL"
                if each.is_sqlite
                else "start PostgreSQL, or mend the address, the login or the database's name in SAGA_DATABASE_URL"
            )
            yield unchecked(f"{each.server}: {each.fault}", each.service, cure=cure)
        else:
            yield fine("SQLite" if each.is_sqlite else "PostgreSQL", each.service)


@check(
    "SQLite durability",
    why="what was committed and acknowledged is lost by a power cut or a restart: the saga never goes on",
)
def sqlite_durability(facts: Facts) -> Iterator[Seen]:
    """SQLite writes each commit to a disk that stays."""
    for each in answering(facts):
        if not each.is_sqlite:
            continue
        synchronous, journal = each.settings["synchronous"], each.settings["journal_mode"]
        if synchronous not in _SAFE_SYNCHRONOUS or journal not in _SAFE_JOURNALS:
            found = f"synchronous={synchronous}, journal_mode={journal}"
            yield problem(
                f"{each.server} has {found}", each.service, cure="PRAGMA synchronous=FULL; PRAGMA journal_mode=WAL"
            )
        elif each.filesystem in _IN_MEMORY:
            yield problem(f"{each.server} lies in memory ({each.filesystem})", each.service, cure=_ELSEWHERE)
        elif each.filesystem in _OVER_A_NETWORK:
            yield problem(
                f"{each.server} lies on a network ({each.filesystem}), where its locks may not hold",
                each.service,
                cure=f"{_ELSEWHERE}; or PostgreSQL: SAGA_DATABASE_URL=postgresql://…",
            )
        elif each.filesystem in _WITH_THE_CONTAINER:
            yield advice(
                f"{each.server} lies in a container's own layer ({each.filesystem}), and goes with it",
                each.service,
                cure="mount a volume there, and name it in SAGA_DATA_DIR",
            )
        else:
            yield fine(f"synchronous=FULL, journal_mode={journal}", each.service)


_ELSEWHERE = "stop the service, move the file to a disk of this machine, and name its directory in SAGA_DATA_DIR"


@check(
    "PostgreSQL durability", why="what was committed and acknowledged is lost by a power cut: the saga never goes on"
)
def postgres_durability(facts: Facts) -> Iterator[Seen]:
    """PostgreSQL writes each commit to its disk before it says so."""
    for each in answering(facts):
        if each.is_sqlite:
            continue
        off = [name for name in _DURABLE if each.settings.get(name) == "off"]
        for name in off:
            yield problem(f"{name} is off in {each.server}", each.service, cure=_switched_on(name, each))
        if not off:
            yield fine("each commit reaches the disk", each.service)


def _switched_on(name: str, database: DatabaseFacts) -> str:
    """Return the statement that undoes the one that switched it off."""
    role, place = f'ROLE "{database.login}"', f'DATABASE "{database.database}"'
    where = {"database": place, "user": role, "database user": f"{role} IN {place}"}.get(database.sources.get(name, ""))
    return f"ALTER {where} RESET {name}" if where else f"ALTER SYSTEM SET {name} = on; SELECT pg_reload_conf()"


@check("disk space", why="on a full disk nothing can be committed")
def disk_space(facts: Facts) -> Iterator[Seen]:
    """An SQLite file has room to grow."""
    for each in answering(facts):
        if each.free_bytes is None:
            continue
        if each.free_bytes < _LITTLE:
            left = f"{each.free_bytes / 1_000_000:.0f} MB are free"
            yield problem(
                f"{left} where {each.server} lies", each.service, cure="make room, or: saga prune --older-than 30d"
            )
        else:
            yield fine("there is room to grow", each.service)


@check("connections", why="at the busiest moment the server turns the service away, and everything waits")
def connections(facts: Facts) -> Iterator[Seen]:
    """Each pool may grow to its size."""
    servers: dict[str, list[DatabaseFacts]] = defaultdict(list)
    for each in answering(facts):
        if not each.is_sqlite:
            servers[each.server].append(each)
            yield from _own_limits(each)
    for server, pools in servers.items():
        wanted, left = MOST_CONNECTIONS * len(pools), min(each.connections["max_connections"] for each in pools)
        if wanted > left:
            yield problem(
                f"{server} has {left} connections, and the pools of {', '.join(each.service for each in pools)} may "
                f"want {wanted}, each replica's as many again",
                cure=f"ALTER SYSTEM SET max_connections = {wanted * 2 + 20}, and restart PostgreSQL",
            )
        else:
            yield fine(f"{server} has {left} connections for pools of {wanted}")


def _own_limits(database: DatabaseFacts) -> Iterator[Seen]:
    for name, left in database.connections.items():
        if name != "max_connections" and left < MOST_CONNECTIONS:
            whose = f'ROLE "{database.login}"' if "login" in name else f'DATABASE "{database.database}"'
            yield problem(
                f"{name} is {left} connections, and the pool may want {MOST_CONNECTIONS}",
                database.service,
                cure=f"ALTER {whose} CONNECTION LIMIT {MOST_CONNECTIONS * 2}, or -1 for none",
            )


@check("database password", why="whoever reaches the server can read and change every saga")
def passwords(facts: Facts) -> Iterator[Seen]:
    """No login has a password that anybody would guess."""
    for each in answering(facts):
        if each.is_sqlite:
            continue
        say = advice if each.is_local else problem
        for login in each.open_logins:
            yield say(
                f"{each.server} lets in {login}",
                each.service,
                cure=f"ALTER ROLE \"{login.partition(',')[0]}\" PASSWORD '…'; in pg_hba.conf scram-sha-256, not trust",
            )
        if not each.open_logins:
            yield fine("no well-known password gets in", each.service)
