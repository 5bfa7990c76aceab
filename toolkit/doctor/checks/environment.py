"""Checks of the environment variables here."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from toolkit.configuration.environment import DEMO_TOKEN, FILE, PREFIX, known_variables
from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import Facts
from toolkit.doctor.findings import Observation, check, fine, problem
from toolkit.urls import is_loopback

#: Variables beside the settings of services: of the command line, of failpoints.
_OTHERS = ("SAGA_SERVICES", "SAGA_PACKAGE", "SAGA_MANAGEMENT_URL", "SAGA_CRASH_AT", "SAGA_CRASH_ON")
#: Variables of compose.yaml and of the tests.
_ELSEWHERE = re.compile(r"SAGA_(\w+_PORT|\w+_LISTENER|CONSOLE_NAMES|\w+_PASSWORD|(\w+_)?IMAGE|OTLP_ENDPOINT|TEST_\w+)")
#: From these similarities on, a name is a typing error of a setting, and one of that form is.
_ALIKE, _ALMOST_THE_SAME = 0.8, 0.9


@check("unknown setting", why="a misspelt setting has no effect", cure="unset {name}; `saga config` lists all settings")
def unknown_settings(facts: Facts) -> Iterator[Observation]:
    """Each environment variable whose name begins with `SAGA_`: a setting of that name exists."""
    known = [*known_variables(Settings), *_OTHERS, f"SAGA_SERVICES{FILE}", f"SAGA_MANAGEMENT_URL{FILE}"]
    given = sorted(name for name in facts.environment if name.upper().startswith(PREFIX))
    unknown = [name for name in given if not _is_known(name.upper(), known)]
    for name in unknown:
        nearest = get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE)
        cure = f"unset {name}; the nearest setting is {nearest[0]}" if nearest else None
        yield problem(f"{name} is set, and no such setting exists", cure=cure, fields={"name": name})
    if not unknown:
        yield fine(f"{len(given)} variables are set, all of them known")


def _is_known(name: str, known: list[str]) -> bool:
    is_elsewhere = _ELSEWHERE.fullmatch(name) and not get_close_matches(name, known, n=1, cutoff=_ALMOST_THE_SAME)
    return name in known or bool(is_elsewhere)


@check(
    "failpoint",
    why="the service kills itself at a failpoint, as a power cut would; failpoints are for tests",
    cure="`unset SAGA_CRASH_AT SAGA_CRASH_ON`",
)
def armed_failpoints(facts: Facts) -> Iterator[Observation]:
    """The environment variable `SAGA_CRASH_AT`: it is not set."""
    if point := facts.environment.get("SAGA_CRASH_AT"):
        yield problem(f"SAGA_CRASH_AT={point} is set")


@check(
    "api token",
    why="every client could read and write there, so a service without a token refuses to start",
    cure="`export SAGA_API_TOKEN=$(openssl rand -hex 32)`, or `SAGA_HTTP_HOST=127.0.0.1`",
)
def api_token(facts: Facts) -> Iterator[Observation]:
    """`SAGA_HTTP_HOST`: if other machines reach it, `SAGA_API_TOKEN` is set, and not to the demo's token."""
    host, token = facts.settings.http_host, facts.settings.write_digest
    if is_loopback(host):
        yield fine(f"services that start here listen on {host} only")
    elif token is None:
        yield problem(f"SAGA_HTTP_HOST={host} is not this machine alone, and SAGA_API_TOKEN is not set")
    elif token.is_of(DEMO_TOKEN.encode()):
        yield problem(f"SAGA_HTTP_HOST={host} is not this machine alone, and SAGA_API_TOKEN={DEMO_TOKEN} is public")
    else:
        yield fine(f"services that start here listen on {host}, and require a token")
