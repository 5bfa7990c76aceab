"""Settings by environment; a bad value is named with the variable and with what is allowed."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from toolkit.errors import SettingsError
from toolkit.urls import HIDDEN, shown_url

if TYPE_CHECKING:
    from sqlalchemy.engine import URL

PREFIX = "SAGA_"
S = TypeVar("S", bound=BaseSettings)
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

#: As many characters of a bad value are shown.
_SHOWN = 200

#: What PostgreSQL's driver takes from a URL: as numbers, and as texts. What else it knows can't be said as text.
_DRIVER_NUMBERS: dict[str, type[float]] = {
    "statement_cache_size": int,
    "prepared_statement_cache_size": int,
    "max_cached_statement_lifetime": int,
    "max_cacheable_statement_size": int,
    "timeout": float,
    "command_timeout": float,
}
_DRIVER_TEXTS = {
    *("host", "port", "user", "password", "database", "passfile", "service", "servicefile", "krbsrvname", "gsslib"),
    *("ssl", "sslmode", "target_session_attrs"),
}
_TLS = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
#: The words that these of them may be.
_DRIVER_WORDS = {
    "ssl": _TLS,
    "sslmode": _TLS,
    "target_session_attrs": ("any", "primary", "standby", "read-write", "read-only", "prefer-standby"),
}
#: A connection that went silent is noticed after three beats: later than this nobody wants to know.
_SLOWEST_HEARTBEAT, _DIGITS = 600, 9
#: What is said where something else stands in the port's place; it may be the rest of a password.
_NO_PORT = "its port is no number up to 65535, or what is special in its password (@ : / ? #) is not percent-encoded"
#: So alike a name has to be to one that is known, to be taken for misspelt.
_ALIKE = 0.8
#: As much is a short string of AMQP.
_LONGEST_LOGIN = 255
#: No such number means anything beyond this.
_MOST = 1_000_000

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


def has_sound_address(url: str) -> str:
    """Return the URL of a server, if anything can listen there.

    Raises:
        ValueError: the host or the port is none.
    """
    try:
        port = urlsplit(url).port
    except ValueError:  # the library's own text repeats what stands in the port's place, a part of the password say
        raise ValueError(_NO_PORT) from None
    if port == 0:
        raise ValueError("nothing listens on port 0")
    return url


def driver_options(url: URL) -> tuple[URL, dict[str, Any]]:
    """Return a PostgreSQL URL without those parameters that the driver wants as numbers, and these.

    Raises:
        ValueError: a parameter is unknown, or its value is none.
    """
    texts, options = dict(url.query), {}
    if unknown := sorted(texts.keys() - _DRIVER_NUMBERS.keys() - _DRIVER_TEXTS):
        known = ", ".join(sorted(_DRIVER_NUMBERS.keys() | _DRIVER_TEXTS))
        raise ValueError(f"the driver takes no parameter {', '.join(unknown)}; it takes {known}")
    for name in texts.keys() & _DRIVER_WORDS.keys():
        if texts[name] not in _DRIVER_WORDS[name]:
            raise ValueError(f"the driver's parameter {name} is one of {', '.join(_DRIVER_WORDS[name])}, given once")
    for name in texts.keys() & _DRIVER_NUMBERS.keys():
        options[name] = _number(name, texts.pop(name), _DRIVER_NUMBERS[name])
    if mode := texts.pop("sslmode", None):  # libpq's word for what asyncpg calls ssl
        texts["ssl"] = mode
    return url.set(query=texts), options


def _number(name: str, value: str | tuple[str, ...], kind: type[float]) -> float:
    try:
        number = kind(value)  # type: ignore[arg-type]  # given twice it is a tuple, which is no number either
    except (TypeError, ValueError) as error:
        raise ValueError(f"the driver's parameter {name} is a number, given once") from error
    least = 1 if kind is float else 0  # a wait of no time at all never succeeds
    if not least <= number <= _MOST:
        raise ValueError(f"the driver's parameter {name} lies between {least} and {_MOST}")
    return number


def has_heartbeat(url: str) -> str:
    """Return the broker's URL, unless its heartbeat could not notice a broker that went silent.

    Raises:
        ValueError: it is no number of seconds, or none.
    """
    for beat in parse_qs(urlsplit(url).query, keep_blank_values=True).get("heartbeat", []):
        if not (beat.isascii() and beat.isdecimal() and 1 <= int(beat[:_DIGITS]) <= _SLOWEST_HEARTBEAT):
            raise ValueError(f"heartbeat={beat}: give whole seconds from 1 to {_SLOWEST_HEARTBEAT}, or leave it out")
    return url


def is_database_url(url: str) -> str:
    """Return the URL of a database, if its driver can make anything of it.

    Raises:
        ValueError: it can't; the text says at what it stumbles.
    """
    from sqlalchemy.engine import make_url  # it takes long, and most settings do not need it
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except ArgumentError:
        raise ValueError("it is no URL") from None
    except ValueError:
        raise ValueError(_NO_PORT) from None
    if parsed.port is not None and not 1 <= parsed.port <= 65_535:
        raise ValueError(_NO_PORT)
    if parsed.drivername == "postgresql":
        driver_options(parsed)
    elif parsed.query:
        raise ValueError(f"SQLite's address takes no parameters; leave out {', '.join(sorted(parsed.query))}")
    return url


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
        raise ValueError(f"{long[0][:_SHOWN]!r} is no login: it has more than {_LONGEST_LOGIN} bytes")
    return value


DatabaseUrl = Annotated[str, Field(pattern=r"^(sqlite:///|postgresql://).+"), AfterValidator(is_database_url)]


class Settings(BaseSettings):
    """What a service reads from `SAGA_…`; the names below, in capitals, behind the prefix."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True)

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
    isolated_concurrency: int = Field(32, ge=1, le=1_000)
    """How many isolated steps call the outside world at once."""
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
    api_token: Annotated[SecretStr | None, BeforeValidator(lambda value: value or None)] = None
    """What a client of the API must show to write; unset: it only reads."""
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
    known = [f"{PREFIX}{name}".upper() for name in Settings.model_fields]
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    close = {name: get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE) for name in unknown}
    return {name: meant[0] for name, meant in close.items() if meant}


def shown_settings(settings: BaseSettings) -> list[dict[str, str | None]]:
    """Return each setting as `variable`, `value` and `source`: `environment` or `default`; no password, no token."""
    kind = type(settings)
    prefix = kind.model_config.get("env_prefix", "")
    variables = {name: f"{prefix}{name}".upper() for name in kind.model_fields}
    named = {name.upper() for name in os.environ}
    return [
        {
            "variable": variable,
            "value": _shown(getattr(settings, name)),
            "source": "environment" if variable in named else "default",
        }
        for name, variable in variables.items()
    ]


def read_settings(kind: type[S], **overrides: Any) -> S:
    """Read settings of this kind, a service's own perhaps, from the environment.

    Raises:
        SettingsError: a value is not allowed.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        prefix = kind.model_config.get("env_prefix", "")
        raise SettingsError(
            "; ".join(_explain(fault, kind, prefix) for fault in error.errors(include_url=False))
        ) from None  # which would repeat the values in a traceback, and their passwords


def _shown(value: Any) -> str | None:
    """Return a value as the environment would say it."""
    if value is None:
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g}s"
    if isinstance(value, dict):
        return json.dumps({name: each if isinstance(each, tuple) else _shown(each) for name, each in value.items()})
    text = str(value)
    return shown_url(text) if "://" in text else text


def _shown_input(field: str, value: Any) -> str:
    """Return a bad value as it may be shown: of a token nothing, of a URL no password, wherever it was put."""
    if field.endswith("token"):
        return repr(HIDDEN)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    is_url = isinstance(value, str) and (field.endswith("url") or "://" in value)
    return repr(shown_url(value) if is_url else value)


def _explain(fault: Any, kind: type[BaseSettings], prefix: str) -> str:
    field, *within = map(str, fault["loc"])
    shown = _shown_input(field, fault["input"])
    place = f" for {within[0]}" if within else ""
    told = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch" and field in kind.model_fields:
        told = f"give {kind.model_fields[field].description}"
    return f"{prefix}{field.upper()}={shown[:_SHOWN]}{place} is not allowed: {told}"
