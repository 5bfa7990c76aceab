"""Settings by environment, or by a file that it names; a bad value is named with what is allowed."""

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
from toolkit.errors import SettingsError
from toolkit.urls import HIDDEN, is_loopback, shown_url

PREFIX = "SAGA_"
#: What is written behind a variable's name to name a file that holds its value.
FILE = "_FILE"
#: How the names of settings end that are secrets, or hold one: these may come from files.
_SECRETS = ("url", "token", "password")
#: A longer file holds something else.
_LONGEST_SECRET = 64 * 1024
#: Passwords that are tried before all others, beside one that equals its login; and the token of our compose.yaml.
DEMO_TOKEN = "demo-token-everybody-knows"  # noqa: S105 -- it is no secret, and that is what is looked for
_DEMO_PASSWORDS = {"guest", "admin", "postgres", "rabbitmq", "password", "secret", "saga", "changeme", DEMO_TOKEN}
#: A token of fewer characters can be guessed, however slowly.
SHORTEST_TOKEN = 16
_IS_DEMO = f"{PREFIX}DEMO"
_DEMO_CURE = f"set another, or {_IS_DEMO}=1 where this is but a demonstration"
#: As many characters of a bad value are shown.
SHOWN = 200
#: So alike a name has to be to one that is known, to be taken for misspelt.
_ALIKE = 0.8

S = TypeVar("S", bound=BaseSettings)


class _Files(PydanticBaseSettingsSource):
    """The values of secrets from the files that `…_FILE` names."""

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Read one setting's file."""
        prefix = self.settings_cls.model_config.get("env_prefix", "")
        return _from_file(f"{prefix}{field_name}".upper()), field_name, False

    def __call__(self) -> dict[str, Any]:
        """Read all files that are named."""
        fields = self.settings_cls.model_fields
        found = {name: self.get_field_value(fields[name], name)[0] for name in fields if _may_be_a_file(name)}
        return {name: value for name, value in found.items() if value is not None}


class FromEnvironment(BaseSettings):
    """Settings whose secrets may come from files, and are shown nowhere; known passwords are for this machine alone."""

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
        """Read files beside the environment."""
        return init_settings, _Files(settings_cls), env_settings

    @field_validator("*", mode="after")
    @classmethod
    def is_no_demo_password(cls, value: Any, info: ValidationInfo) -> Any:
        """Refuse a URL that leads to another machine with a password that everybody tries."""
        is_url = isinstance(value, str) and (info.field_name or "").endswith("url") and "://" in value
        if is_url and not info.data.get("demo", _is_demo()) and has_demo_password(value):
            raise ValueError(f"everybody knows that password, and the server is reached by a network: {_DEMO_CURE}")
        return value

    def __repr_args__(self) -> Iterable[tuple[str | None, Any]]:
        """Show each setting as `saga config` does: whoever logs them shows no password."""
        return [(name, _shown(getattr(self, name))) for name in type(self).model_fields]


def has_demo_password(url: str) -> bool:
    """Whether a server off this machine is logged in to with a password that everybody tries first."""
    if url.startswith("sqlite:"):
        return False
    if url.startswith("postgresql:"):
        from sqlalchemy.engine import make_url  # what is special in a password need not be encoded for it

        url = make_url(url).render_as_string(hide_password=False)
    login, password = login_of(url)
    is_known = bool(password) and password.lower() in {login.lower(), *_DEMO_PASSWORDS}
    return is_known and not all(is_loopback(host) for host in hosts_of(url))


def guard_token(variable: str, token: SecretStr | None, place: str) -> None:
    """Refuse a token that can be guessed where others than this machine may guess at it; no token is none of those.

    Raises:
        SettingsError: it is short, or the demo's though this is no demonstration.
    """
    shown = token.get_secret_value() if token else ""
    if shown == DEMO_TOKEN and not _is_demo():
        raise SettingsError(f"{place}, and everybody knows {variable}={DEMO_TOKEN}: {_DEMO_CURE}")
    if shown and len(shown) < SHORTEST_TOKEN:
        raise SettingsError(
            f"{place}, and {variable} has {len(shown)} characters: "
            f"give it {SHORTEST_TOKEN} or more, by `openssl rand -hex 32` say"
        )


def said(variable: str) -> str:
    """Return what the environment, or the file that it names, says of a secret that is no setting; else nothing.

    Raises:
        SettingsError: the file can't be read, or both say something.
    """
    return _from_file(variable) or os.environ.get(variable, "")


def read_settings(kind: type[S], **overrides: Any) -> S:
    """Read settings of this kind, a service's own perhaps, from the environment.

    Raises:
        SettingsError: a value is not allowed.
    """
    try:
        return kind(**overrides)
    except ValidationError as error:
        raise SettingsError(
            "; ".join(_explain(fault, kind) for fault in error.errors(include_url=False))
        ) from None  # which would repeat the values in a traceback, and their passwords


def known_variables(kind: type[BaseSettings]) -> list[str]:
    """Return the variables that such settings are read from, those that name files too."""
    names = {name: f"{kind.model_config.get('env_prefix', '')}{name}".upper() for name in kind.model_fields}
    return [*names.values(), *(f"{variable}{FILE}" for name, variable in names.items() if _may_be_a_file(name))]


def misspelt(environment: Mapping[str, str], known: list[str]) -> dict[str, str]:
    """Return the variables that no setting reads and that look like one, with the setting that was meant."""
    unknown = [name for name in environment if name.upper().startswith(PREFIX) and name.upper() not in known]
    close = {name: get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE) for name in unknown}
    return {name: meant[0] for name, meant in close.items() if meant}


def shown_settings(settings: BaseSettings) -> list[dict[str, str | None]]:
    """Return each setting as `variable`, `value` and `source`, without any password or token.

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
    """Return a variable's value in the environment, where its case does not count."""
    return next((value for name, value in os.environ.items() if name.upper() == variable), None)


def _may_be_a_file(name: str) -> bool:
    return name.lower().endswith(_SECRETS)


def _from_file(variable: str) -> str | None:
    """Return what the file holds that `<variable>_FILE` names; None where none is named."""
    path = _named(f"{variable}{FILE}")
    if not path:
        return None
    where = f"{variable}{FILE}={path!r}"
    if _named(variable):
        raise SettingsError(f"{variable} and {variable}{FILE} are both set: unset one of them")
    try:
        with open(path, encoding="utf-8") as file:
            text = file.read(_LONGEST_SECRET + 1)
    except (OSError, ValueError) as error:  # a text with a NUL is no path, and what is no UTF-8 no value
        told = getattr(error, "strerror", None) or "it holds no UTF-8"
        raise SettingsError(f"{where} can't be read: {told}; name a file that holds the value alone") from None
    value = text.rstrip("\r\n")
    if not value or len(text) > _LONGEST_SECRET or not value.isprintable():
        fault = "is empty" if not value else "holds more than one line of text"
        raise SettingsError(f"{where} {fault}: write the value alone into it")
    return value


def _is_demo() -> bool:
    return (_named(_IS_DEMO) or "").strip().lower() in ("1", "true", "yes", "on", "t", "y")


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
    if field.endswith(("token", "password")):
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
    told = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "string_pattern_mismatch" and field in kind.model_fields:
        told = f"give {kind.model_fields[field].description}"
    return f"{variable}={shown}{place} is not allowed: {told}"
