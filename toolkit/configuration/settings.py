"""The settings of a service, from `SAGA_…` variables; errors show the variable, the value and the allowed values."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_settings import NoDecode, SettingsConfigDict

from toolkit.configuration.environment import PREFIX, SHOWN, FromEnvironment, known_variables, misspelt, read_settings
from toolkit.configuration.server_urls import SCHEMA, DatabaseUrl, has_heartbeat, has_sound_address
from toolkit.configuration.tokens import Digest, Token, TokenDigest, token_digest
from toolkit.errors import SettingsError

#: The longest timeout; it can be added to any time without leaving the calendar.
LONGEST_WAIT = timedelta(days=3650)


#: No younger entry is pruned from the saga log: the log is the fence, and has to outlive each cause of a repeated
#: delivery. Such causes are a retry of a call (10 minutes at most), an outbox row whose confirm was lost (a lease, then
#: a minute), a saga's nudges (which end with it), and a broker or service that is down overnight. A later delivery does
#: not run either: it is older than the log, and becomes a dead letter.
SHORTEST_RETENTION = timedelta(days=1)

#: The default limit of a message, in bytes: large data belongs elsewhere.
LARGEST_MESSAGE = 256 * 1024

#: The smallest limit, in bytes: a refusal with the longest reason fits, even if JSON escapes each of its characters.
SMALLEST_LIMIT = 8 * 1024

LONGEST_RETENTION = timedelta(days=36_500)

#: The most bytes of an AMQP short string.
_LONGEST_LOGIN = 255
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_\-]{0,63}", re.ASCII)
#: A schema that the URL names itself.
SCHEMA_PARAMETER = re.compile(r"[?&]schema=")
_UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", re.ASCII)


def _seconds(value: Any) -> Any:
    """Return a number from the environment as seconds; a unit after it counts."""
    if not isinstance(value, str):
        return value
    if span := _SPAN.fullmatch(value.strip()):
        return float(span[1]) * _UNITS[span[2]]
    try:
        return float(value)
    except ValueError:
        return value


#: Seconds, a number with its unit, or an ISO 8601 duration: `5`, `5s`, `2min`, `1h`, `30d`, `PT5S`.
Duration = Annotated[timedelta, BeforeValidator(_seconds)]


def _directory(value: str | Path) -> Path:
    """Return the path of a directory that exists or can be created."""
    path = Path(value)
    try:
        if not value:
            raise ValueError("name a directory")
        if path.exists() and not path.is_dir():
            raise ValueError("it is a file; name a directory")
    except OSError as error:
        raise ValueError(f"{error.strerror}; name another directory") from error
    return path


def _object_like(example: dict[str, Any]) -> BeforeValidator:
    """Parse JSON from the environment here: the library's error would show neither the variable nor the value."""

    def read(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        try:
            found = json.loads(value)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ValueError(f"give a JSON object, such as {json.dumps(example)}")
        return found

    return BeforeValidator(read)


def _are_logins(value: Any) -> Any:
    """Return the list of one owner's logins.

    Raises:
        ValueError: it is empty, or a login is longer than an AMQP property can be.
    """
    if not (isinstance(value, list | tuple) and value and all(isinstance(each, str) and each for each in value)):
        raise ValueError('give a list of logins, such as ["payment"]; leave out an owner whose events anyone may send')
    if long := [each for each in value if len(each.encode()) > _LONGEST_LOGIN]:
        raise ValueError(f"{long[0][:SHOWN]!r} is not a login: it has more than {_LONGEST_LOGIN} bytes")
    return value


def _coordinators(value: Any) -> Any:
    """Return a coordinator for each saga type; a single word is the coordinator of every saga, under the type `*`."""
    if not isinstance(value, str):
        return value
    if not value.strip():
        return {}
    if _WORD.fullmatch(value):
        return {"*": value}
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = None
    if not (
        isinstance(found, dict) and all(isinstance(each, str) and _WORD.fullmatch(each) for each in found.values())
    ):
        raise ValueError('name a service, such as fulfillment, or one for each saga: {"order": "fulfillment"}')
    return found


class Settings(FromEnvironment):
    """A service's settings: each is read from its name in capitals, after the prefix `SAGA_`."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    demo: Annotated[bool, BeforeValidator(lambda value: value or False)] = False
    """Whether well-known passwords and tokens are accepted for other machines, too."""
    broker_url: Annotated[
        str,
        Field(
            pattern=r"^(amqps?://.+|embedded)$",
            description="amqp://user:password@host:port/vhost, or embedded",
        ),
        AfterValidator(has_sound_address),
        AfterValidator(has_heartbeat),
    ] = "amqp://guest:guest@127.0.0.1:5672/"
    """`amqp://user:password@host:port/vhost`, or `embedded`: one process, no broker."""
    database_url: DatabaseUrl | None = Field(
        default=None, description="sqlite:///path, or postgresql://user:password@host:port/database"
    )
    """`sqlite:///path` or `postgresql://user:password@host/database`; a file in `data_dir` if unset."""
    data_dir: Annotated[Path, BeforeValidator(_directory)] = Path(".saga")
    """The directory of the SQLite files."""
    database_schema: str | None = Field(
        None, pattern=f"^{SCHEMA.pattern}$", description="a name of up to 63 letters, digits and underscores"
    )
    """The schema of the toolkit's tables on PostgreSQL; unset: the first one of the login's `search_path`."""
    create_tables: bool = True
    """Whether a service creates missing tables at its start; otherwise `saga db upgrade` does, and the service's own
    migrations."""
    exchange: str = Field(
        default="saga",
        pattern=r"^[A-Za-z0-9._\-]{1,60}$",
        description="1 to 60 letters, digits, dots, hyphens or underscores",
    )
    """The topic exchange; the names of the queues begin with it, so two systems can share a broker."""
    logins: Annotated[
        dict[str, Annotated[tuple[str, ...], BeforeValidator(_are_logins)]],
        NoDecode,
        _object_like({"payment": ["payment"]}),
    ] = Field(default_factory=dict)
    """By owner, the logins that may send its events, in JSON; events of other owners are not checked."""
    asked_by: Annotated[dict[str, str], NoDecode, BeforeValidator(_coordinators)] = Field(default_factory=dict)
    """The coordinator that asks this service's steps: a service's name, or in JSON one for each saga type. Its steps
    then run on that coordinator's commands alone; empty: they run on events."""
    prefetch: int = Field(default=400, ge=1, le=10_000)
    """The most unacknowledged deliveries of a service."""
    redeclare_every: Duration = Field(
        default=timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(hours=1)
    )
    """How often a service declares its queue and its bindings again, in case they were deleted."""
    batch_size: int = Field(default=100, ge=1, le=1_000)
    """The most steps that share one transaction."""
    reads_first: bool = False
    """Whether the saga log is read before each step, so that no step's function is called for a duplicate; otherwise a
    duplicate's call is rolled back."""
    external_concurrency: int = Field(default=32, ge=1, le=1_000)
    """The most external steps that run at once."""
    relay_window: int = Field(default=500, ge=1, le=10_000)
    """The most outbox rows that a relay has in flight."""
    relay_lease: Duration = Field(default=timedelta(seconds=5), ge=timedelta(seconds=1), le=timedelta(minutes=5))
    """How long an outbox row belongs to the relay that claimed it."""
    relay_poll: Duration = Field(default=timedelta(seconds=1), ge=timedelta(milliseconds=10), le=timedelta(minutes=1))
    """How often the relay looks for due rows when no commit wakes it."""
    step_timeouts: Annotated[
        dict[str, Annotated[Duration, Field(ge=timedelta(milliseconds=1), le=LONGEST_WAIT)]],
        NoDecode,
        _object_like({"my_step": "PT30S"}),
    ] = Field(default_factory=dict)
    """Timeouts by step name that override the declared ones: JSON, seconds or ISO 8601 durations."""
    step_reminders: Annotated[
        dict[str, Annotated[Duration, Field(ge=timedelta(milliseconds=1), le=LONGEST_WAIT)]],
        NoDecode,
        _object_like({"my_step": "P1D"}),
    ] = Field(default_factory=dict)
    """By step name, how often a step reminds of its open question, in place of its `remind`: JSON, likewise."""
    overdue_after: Duration = Field(default=timedelta(minutes=10), ge=timedelta(seconds=1), le=LONGEST_WAIT)
    """How long after a step the saga may pause before the step counts as overdue, and is nudged."""
    nudge_every: Duration = Field(default=timedelta(minutes=1), ge=timedelta(milliseconds=100), le=LONGEST_WAIT)
    """The delay before an overdue step's event is sent again; it doubles each time, up to an hour."""
    abort_after: Duration = Field(default=timedelta(hours=1), ge=timedelta(seconds=1), le=LONGEST_WAIT)
    """How long after a step an unfinished saga is aborted."""
    watch_every: Duration = Field(default=timedelta(seconds=5), ge=timedelta(milliseconds=10), le=timedelta(minutes=5))
    """How often overdue steps are looked for."""
    retention: Duration | None = Field(default=None, ge=SHORTEST_RETENTION, le=LONGEST_RETENTION)
    """How long an ended saga is kept after its last entry, a dead letter after its last arrival; unset: for ever."""
    max_message_bytes: int = Field(default=LARGEST_MESSAGE, ge=SMALLEST_LIMIT, le=16 * 1024 * 1024)
    """The largest event: emitting a larger one fails the step, receiving one dead-letters it. Equal in all services."""
    workers: int = Field(default=1, ge=1, le=64)
    """How many processes `saga run` runs the service in."""
    allow_undeclared_steps: bool = False
    """Whether a service starts although unfinished sagas are at steps that it no longer declares."""
    http_host: str = Field(default="127.0.0.1", min_length=1)
    """The address of the health checks and the API."""
    http_port: int | None = Field(default=None, ge=0, le=65_535)
    """Their port; unset: 8000, or any free one where that is taken."""
    health_port: int = Field(default=0, ge=0, le=65_535)
    """Another port for the health checks and the metrics; 0: any free one, which the log names."""
    http_names: str = Field(
        default="",
        pattern=r"^((\*\.)?[A-Za-z0-9._\-]+( *, *(\*\.)?[A-Za-z0-9._\-]+)*)?$",
        description="names, separated by commas: payment.shop.example, *.svc.cluster.local",
    )
    """Further host names of the API, beside its service's name, this machine's names, and any address."""
    api_token: Token = None
    """The token for writing by the API; without it and its digest the API is read-only."""
    api_token_digest: Digest = None
    """The digest by which a service verifies that token without holding it."""
    api_read_token: Token = None
    """The token for reading by the API, where reading needs one."""
    api_read_token_digest: Digest = None
    """The digest by which a service verifies that token."""
    behind_https: bool = False
    """Whether an HTTPS proxy is in front of the console; its forwarded headers are then trusted."""
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def login(self) -> str:
        """The login at the broker, which verifies it in each message."""
        return unquote(urlsplit(self.broker_url).username or "guest")

    @property
    def write_digest(self) -> TokenDigest | None:
        """The digest of the token for changes, if there is one."""
        return token_digest(self.api_token or self.api_token_digest)

    @property
    def read_digest(self) -> TokenDigest | None:
        """The digest of the token for reading, if there is one."""
        return token_digest(self.api_read_token or self.api_read_token_digest)

    @property
    def vhost(self) -> str:
        """The virtual host on the broker."""
        return unquote(urlsplit(self.broker_url).path[1:]) or "/"

    def database_for(self, service: str) -> str:
        """Return the URL of this service's database: the setting, or its file in the data directory.

        Raises:
            SettingsError: a schema is named, and the database is SQLite's, which has none.
        """
        url = self.database_url or f"sqlite:///{self.data_dir / service}.db"
        if self.database_schema is None or SCHEMA_PARAMETER.search(url):
            return url
        if url.startswith("sqlite"):
            raise SettingsError(
                f"SAGA_DATABASE_SCHEMA={self.database_schema} is not allowed: SQLite has no schemas; leave it out, or "
                "name a database on PostgreSQL in SAGA_DATABASE_URL"
            )
        return f"{url}{'&' if '?' in url else '?'}schema={self.database_schema}"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a value is not allowed.
    """
    return read_settings(Settings, **overrides)


def misspelt_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that no setting reads and that resemble one, with the resembled variable."""
    return misspelt(environment, known_variables(Settings))


def queue_name(settings: Settings, service: str) -> str:
    """Return the name of a service's queue: the exchange's name keeps two systems on one broker apart."""
    return f"{settings.exchange}.{service}"


#: The value of `broker_url` without a broker; also OpenTelemetry's name of the messaging system.
EMBEDDED = "embedded"
