"""Settings by environment; a bad value is named with the variable and with what is allowed."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode, SettingsConfigDict

from toolkit.configuration.environment import PREFIX, SHOWN, FromEnvironment, known_variables, misspelt, read_settings
from toolkit.configuration.server_urls import DatabaseUrl, has_heartbeat, has_sound_address

#: A longer wait means never, and can be added to any time without leaving the calendar.
LONGEST_WAIT = timedelta(days=3650)


#: Nothing younger is ever pruned from the saga log, because the log is the fence, and the fence must outlive whatever
#: may bring an event again: a retry of a call (10 minutes at most), an outbox row whose confirm was lost (a lease, then
#: a minute), the nudges of a saga (which end with it), a broker or a service that is down overnight. What comes later
#: still is not run either: older than the log and unknown to it, it becomes a dead letter.
SHORTEST_RETENTION = timedelta(days=1)

#: A message of more bytes is none, unless the settings say otherwise: large data belongs elsewhere.
LARGEST_MESSAGE = 256 * 1024

#: What any service must be able to take: a refusal with the longest reason, each character of which JSON escapes.
SMALLEST_LIMIT = 8 * 1024

LONGEST_RETENTION = timedelta(days=36_500)

#: As much is a short string of AMQP.
_LONGEST_LOGIN = 255
_UNITS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
_SPAN = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", re.ASCII)


def _seconds(value: Any) -> Any:
    """Take a plain number from the environment as seconds, and one with a unit for what it says."""
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
    """Return a directory that is there or may be made."""
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
    """Read JSON from the environment here, not in the library: it would name neither the variable nor the value."""

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
    """Return the logins of one owner, in a list.

    Raises:
        ValueError: there is none, or one that no AMQP property can hold.
    """
    if not (isinstance(value, list | tuple) and value and all(isinstance(each, str) and each for each in value)):
        raise ValueError('give a list of logins, such as ["payment"]; leave out an owner whose events anyone may send')
    if long := [each for each in value if len(each.encode()) > _LONGEST_LOGIN]:
        raise ValueError(f"{long[0][:SHOWN]!r} is no login: it has more than {_LONGEST_LOGIN} bytes")
    return value


class Settings(FromEnvironment):
    """What a service reads from `SAGA_…`; the names below, in capitals, behind the prefix."""

    model_config = SettingsConfigDict(env_prefix=PREFIX)

    demo: Annotated[bool, BeforeValidator(lambda value: value or False)] = False
    """Whether passwords and tokens that everybody knows are taken off this machine, too."""
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
        None, description="sqlite:///path, or postgresql://user:password@host:port/database"
    )
    """`sqlite:///path` or `postgresql://user:password@host/database`; a file in `data_dir` if unset."""
    data_dir: Annotated[Path, BeforeValidator(_directory)] = Path(".saga")
    """Where the SQLite files lie."""
    exchange: str = Field(
        "saga", pattern=r"^[A-Za-z0-9._\-]{1,60}$", description="1 to 60 letters, digits, dots, hyphens or underscores"
    )
    """The topic exchange; the names of the queues begin with it, so two systems can share a broker."""
    logins: Annotated[
        dict[str, Annotated[tuple[str, ...], BeforeValidator(_are_logins)]],
        NoDecode,
        _object_like({"payment": ["payment"]}),
    ] = Field(default_factory=dict)
    """By owner, the logins that may send its events, in JSON; those of an owner that is not named are not checked."""
    prefetch: int = Field(200, ge=1, le=10_000)
    """How many deliveries a service holds unacknowledged at most."""
    redeclare_every: Duration = Field(timedelta(seconds=5), ge=timedelta(milliseconds=100), le=timedelta(hours=1))
    """How often a service makes sure of its queue and its bindings, which may be deleted behind its back."""
    batch_size: int = Field(50, ge=1, le=1_000)
    """How many steps share one transaction at most."""
    external_concurrency: int = Field(32, ge=1, le=1_000)
    """How many external steps call the outside world at once."""
    relay_window: int = Field(500, ge=1, le=10_000)
    """How many outbox rows one relay has in flight at most."""
    relay_lease: Duration = Field(timedelta(seconds=5), ge=timedelta(seconds=1), le=timedelta(minutes=5))
    """How long a claimed outbox row is left to the relay that claimed it."""
    relay_poll: Duration = Field(timedelta(seconds=1), ge=timedelta(milliseconds=10), le=timedelta(minutes=1))
    """How often the relay looks for due rows when nobody wakes it."""
    step_timeouts: Annotated[
        dict[str, Annotated[Duration, Field(ge=timedelta(milliseconds=1), le=LONGEST_WAIT)]],
        NoDecode,
        _object_like({"my_step": "PT30S"}),
    ] = Field(default_factory=dict)
    """Timeouts by step name that override the declared ones: JSON, seconds or ISO 8601 durations."""
    overdue_after: Duration = Field(timedelta(minutes=10), ge=timedelta(seconds=1), le=LONGEST_WAIT)
    """How long after a step the saga may go on before the step counts as overdue, and is nudged."""
    nudge_every: Duration = Field(timedelta(minutes=1), ge=timedelta(milliseconds=100), le=LONGEST_WAIT)
    """How soon the event of an overdue step is sent again; each pause is twice the one before, up to an hour."""
    abort_after: Duration = Field(timedelta(hours=1), ge=timedelta(seconds=1), le=LONGEST_WAIT)
    """How long after a step whose saga has not ended an abort is sent to all."""
    watch_every: Duration = Field(timedelta(seconds=5), ge=timedelta(milliseconds=10), le=timedelta(minutes=5))
    """How often overdue steps are looked for."""
    retention: Duration | None = Field(None, ge=SHORTEST_RETENTION, le=LONGEST_RETENTION)
    """How long after its last entry an ended saga, or a dead letter, is kept; unset: for ever."""
    max_message_bytes: int = Field(LARGEST_MESSAGE, ge=SMALLEST_LIMIT, le=16 * 1024 * 1024)
    """A step that emits more has failed; a larger message goes to the dead letters unread. The same in each service."""
    allow_undeclared_steps: bool = False
    """Whether a service starts though sagas are under way at steps that it does not declare any more."""
    http_host: str = Field("127.0.0.1", min_length=1)
    """Where the health checks and the API listen."""
    http_port: int | None = Field(None, ge=0, le=65_535)
    """Their port; unset: 8000, or any free one where that is taken."""
    health_port: int = Field(0, ge=0, le=65_535)
    """Where the health checks and the metrics listen, too; 0: any free one, which the log names."""
    http_names: str = Field(
        "",
        pattern=r"^((\*\.)?[A-Za-z0-9._\-]+( *, *(\*\.)?[A-Za-z0-9._\-]+)*)?$",
        description="names, separated by commas: payment.shop.example, *.svc.cluster.local",
    )
    """Under which further names clients ask the API, beside its service's, this machine's, and any address."""
    api_token: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    """What a client of the API must show to write; unset: it only reads."""
    api_read_token: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    """What a client of the API may show to read where reading needs a token, too."""
    behind_https: bool = False
    """Whether browsers reach the console by a proxy that speaks HTTPS; its forwarded headers are believed then."""
    log_format: Literal["json", "console"] = "console"
    log_level: Literal["debug", "info", "warning", "error"] = "info"

    @property
    def login(self) -> str:
        """The login by which the broker knows us, which it verifies of each message."""
        return unquote(urlsplit(self.broker_url).username or "guest")

    @property
    def vhost(self) -> str:
        """The virtual host on the broker."""
        return unquote(urlsplit(self.broker_url).path[1:]) or "/"

    def database_for(self, service: str) -> str:
        """Return the database of this service: the one that is set, or its file in the data directory."""
        return self.database_url or f"sqlite:///{self.data_dir / service}.db"


def load_settings(**overrides: Any) -> Settings:
    """Read the settings from the environment.

    Raises:
        SettingsError: a value is not allowed.
    """
    return read_settings(Settings, **overrides)


def misspelt_settings(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the variables that no setting reads and that look like one, with the setting that was meant."""
    return misspelt(environment, known_variables(Settings))


def queue_name(settings: Settings, service: str) -> str:
    """Return the name of a service's queue: the exchange's name keeps two systems on one broker apart."""
    return f"{settings.exchange}.{service}"


#: What OpenTelemetry calls a broker that there is none of.
EMBEDDED = "embedded"
