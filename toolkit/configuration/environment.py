"""Read settings from environment variables and from files that they name; errors show the allowed values."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, TypeVar

from pydantic import SecretStr, ValidationError, ValidationInfo, field_validator
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from toolkit.configuration.server_urls import hosts_of, login_of
from toolkit.configuration.tokens import SHORTEST_TOKEN, TokenDigest, token_digest
from toolkit.errors import SettingsError
from toolkit.urls import HIDDEN, is_loopback, shown_url

PREFIX = "SAGA_"
#: The suffix of a variable that names a file with the setting's value.
FILE = "_FILE"
#: The suffixes of settings that are secrets, or hold one: these may come from files.
_SECRETS = ("url", "token", "password", "digest")
#: A longer file is not a secret.
_LONGEST_SECRET = 64 * 1024
#: Well-known passwords, beside one that equals its login; and the token of our compose.yaml.
DEMO_TOKEN = "demo-token-everybody-knows"  # noqa: S105 -- not a secret: the check for well-known ones looks for it
_DEMO_PASSWORDS = {"guest", "admin", "postgres", "rabbitmq", "password", "secret", "saga", "changeme", DEMO_TOKEN}
_IS_DEMO = f"{PREFIX}DEMO"
_DEMO_CURE = f"set another, or {_IS_DEMO}=1 for a demonstration"
#: The most characters of a bad value that an error shows.
SHOWN = 200
#: The similarity to a known name from which an unknown one counts as misspelt.
_ALIKE = 0.8

S = TypeVar("S", bound=BaseSettings)


class _Files(PydanticBaseSettingsSource):
    """Reads secrets from the files that `…_FILE` variables name."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read one setting's file."""
        prefix = self.settings_cls.model_config.get("env_prefix", "")
        return _from_file(f"{prefix}{field_name}".upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read all named files."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(fields[name], name)[0] for name in fields if _may_be_a_file(name)}
        return {name: value for name, value in found.items() if value is not None}


class FromEnvironment(BaseSettings):
    """Settings whose secrets may come from files and are never shown; well-known passwords need a local server."""

    model_config = SettingsConfigDict(frozen=True, hide_input_in_errors=True)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Add the files to the sources."""
        return init_settings, _Files(settings_cls), env_settings

    @field_validator("*", mode="after")
    @classmethod
    def is_no_demo_password(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a URL that leads to another machine with a well-known password."""
        is_url = isinstance(value, str) and (info.field_name or "").endswith("url") and "://" in value
        if is_url and not info.data.get("demo", _is_demo()) and (fault := password_fault(value)):
            raise ValueError(f"{fault}, and the server is not on this machine: {_DEMO_CURE}")
        return value

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show each setting as `saga config` does, so that a log line shows no password."""
        return [(name, _shown(getattr(self, name))) for name in type(self).model_fields]


def password_fault(url: str) -> str | None:
    """Return the fault of the password that a URL leads to another machine with, a well-known one; None without one.

    Both drivers complete a URL: the broker's by the login and the password guest, PostgreSQL's from the environment.
    """
    if url.startswith("sqlite:"):
        return None
    is_postgres = url.startswith("postgresql:")
    if is_postgres:
        from sqlalchemy.engine import make_url  # it parses passwords with special characters that are not encoded

        url = make_url(url).render_as_string(hide_password=False)
    login, password = login_of(url)
    hosts = hosts_of(url) or (os.environ.get("PGHOST", "").split(",") if is_postgres else [])
    if all(is_loopback(host) for host in hosts if host):
        return None
    if not is_postgres and not (login and password):
        return "it lacks a login or a password, in whose place the client sends the well-known guest"
    variable = "" if password else os.environ.get("PGPASSWORD", "")
    login, password = login or os.environ.get("PGUSER", ""), password or variable
    is_known = bool(password) and password.lower() in {login.lower(), *_DEMO_PASSWORDS}
    return f"{'PGPASSWORD' if variable else 'its password'} is well known" if is_known else None


def guard_token(variable: str, token: SecretStr | None, place: str) -> None:
    """Refuse a guessable token where other machines can guess it; `place` describes the exposure. None is allowed.

    Raises:
        SettingsError: the token is short, or is the demo's outside a demonstration.
    """
    shown = token.get_secret_value() if token else ""
    digest = token_digest(token)
    if digest and digest.sha256 == TokenDigest.of(DEMO_TOKEN).sha256 and not _is_demo():
        raise SettingsError(f"{place}, and {variable}={DEMO_TOKEN} is well known: {_DEMO_CURE}")
    if shown and len(shown) < SHORTEST_TOKEN:
        raise SettingsError(
            f"{place}, and {variable} has {len(shown)} characters: "
            f"give it {SHORTEST_TOKEN} or more, for example by `openssl rand -hex 32`"
        )


def secret_variable(variable: str) -> str:
    """Return a secret that is not a setting, from its variable or from the file that `…_FILE` names; else nothing.

    Raises:
        SettingsError: the file can't be read, or both variables are set.
    """
    return _from_file(variable) or os.environ.get(variable, "")


def read_settings(kind: type[S], **overrides: Any) -> S:
    """Read settings of this class, which may be a service's own, from the environment.

    Raises:
        SettingsError: a value is not allowed.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_explain(fault, kind) for fault in error.errors(include_url=False))
        ) from None  # its traceback would repeat the values, and their passwords


def known_variables(kind: type[BaseSettings]) -> list[str]:
    """Return the variables that these settings are read from, including those that name files."""
    names = {name: f"{kind.model_config.get('env_prefix', '')}{name}".upper() for name in kind.model_fields}
    return [*names.values(), *(f"{variable}{FILE}" for name, variable in names.items() if _may_be_a_file(name))]


def misspelt(environment: Mapping[str, str], known: list[str]) -> dict[str, str]:
    """Return the variables that no setting reads and that resemble one, with the resembled variable."""
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    close = {name: get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE) for name in unknown}
    return {name: matches[0] for name, matches in close.items() if matches}


def shown_settings(settings: BaseSettings) -> list[dict[str, str | None]]:
    """Return each setting as `variable`, `value` and `source`, without passwords and tokens.

    A source is `environment`, `file` or `default`.
    """
    kind = type(settings)
    prefix = kind.model_config.get("env_prefix", "")
    return [
        {"variable": variable, "value": _shown(getattr(settings, name)), "source": _source_of(variable)}
        for name in kind.model_fields
        for variable in [f"{prefix}{name}".upper()]
    ]


def _source_of(variable: str) -> str:
    return "environment" if _named(variable) is not None else "file" if _named(f"{variable}{FILE}") else "default"


def _named(variable: str) -> str | None:
    """Return a variable's value in the environment, ignoring the case of its name."""
    return next((value for name, value in os.environ.items() if name.upper() == variable), None)


def _may_be_a_file(name: str) -> bool:
    return name.lower().endswith(_SECRETS)


def _from_file(variable: str) -> str | None:
    """Return the content of the file that `<variable>_FILE` names; None where it names none."""
    path = _named(f"{variable}{FILE}")
    if not path:
        return None
    where = f"{variable}{FILE}={_shown_path(path)!r}"
    if _named(variable):
        raise SettingsError(f"{variable} and {variable}{FILE} are both set: unset one of them")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path, or content that is not UTF-8
        cause = getattr(error, "strerror", None) or "it is not UTF-8"
        raise SettingsError(f"{where} can't be read: {cause}; name a file that holds the value alone") from None
    value = text.rstrip("\r\n")
    if not value or len(text) > _LONGEST_SECRET or not value.isprintable():
        fault = "is empty" if not value else "holds more than one line of text"
        raise SettingsError(f"{where} {fault}: write the value alone into it")
    return value


def _shown_path(path: str) -> str:
    """Return the name of a file; a text that is none may be the secret itself, in place of its file."""
    is_path = path.startswith(("/", "./", "../")) or os.path.lexists(path)
    return path if is_path else HIDDEN


def _is_demo() -> bool:
    return (_named(_IS_DEMO) or "").strip().lower() in ("1", "true", "yes", "on", "t", "y")


def _shown(value: Any) -> str | None:
    """Return a value in the form of an environment variable, passwords redacted."""
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
    """Return a bad value for an error: a token is redacted, and so are passwords in any URL."""
    if field.endswith(("token", "password", "digest")):
        return repr(HIDDEN)
    if isinstance(value, timedelta):
        return f"{value.total_seconds():g} s"
    is_url = isinstance(value, str) and (field.endswith("url") or "://" in value)
    return repr(shown_url(value) if is_url else value)


def _explain(fault: Any, kind: type[BaseSettings]) -> str:
    field, *within = map(str, fault["loc"])
    variable = f"{kind.model_config.get('env_prefix', '')}{field}".upper()
    file = _named(f"{variable}{FILE}") if _may_be_a_file(field) else None
    shown = f"{_shown_input(field, fault['input'])[:SHOWN]}" + (f", from {file}," if file else "")
    place = f" for {within[0]}" if within else ""
    reason = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch" and (described := kind.model_fields[field].description):
        reason = f"give {described}"
    return f"{variable}={shown}{place} is not allowed: {reason}"
