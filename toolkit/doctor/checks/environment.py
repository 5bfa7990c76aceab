"""What the environment here says, and nobody reads, or nobody should set."""

from __future__ import annotations

import re
from collections.abc import Iterator
from difflib import get_close_matches

from toolkit.configuration.environment import DEMO_TOKEN, FILE, PREFIX, known_variables
from toolkit.configuration.settings import Settings
from toolkit.doctor.facts import Facts
from toolkit.doctor.findings import Seen, check, fine, problem
from toolkit.urls import is_loopback

#: What is read beside the settings of services: by the command line, by failpoints.
_OTHERS = ("SAGA_SERVICES", "SAGA_PACKAGE", "SAGA_MANAGEMENT_URL", "SAGA_CRASH_AT", "SAGA_CRASH_ON")
#: What compose.yaml reads, and what the tests do.
_ELSEWHERE = re.compile(r"SAGA_(\w+_PORT|\w+_PASSWORD|(\w+_)?IMAGE|OTLP_ENDPOINT|TEST_\w+)")
#: From here on two names are taken for one that was mistyped.
_ALIKE, _ALMOST_THE_SAME = 0.6, 0.9


@check("unknown setting", why="nobody reads it, so what was meant by it does not hold")
def unknown_settings(facts: Facts) -> Iterator[Seen]:
    """Every variable that begins with SAGA_ is read by somebody."""
    known = [*known_variables(Settings), *_OTHERS, f"SAGA_SERVICES{FILE}", f"SAGA_MANAGEMENT_URL{FILE}"]
    given = sorted(name for name in facts.environment if name.upper().startswith(PREFIX))
    unknown = [name for name in given if not _is_read(name.upper(), known)]
    for name in unknown:
        meant = get_close_matches(name.upper(), known, n=1, cutoff=_ALIKE)
        instead = (
            f"; {meant[0]} is the nearest that there is" if meant else "; `saga config` lists those that there are"
        )
        yield problem(f"{name} is set, and no such setting exists", cure=f"unset {name}{instead}")
    if not unknown:
        yield fine(f"{len(given)} variables are set, all of them known")


def _is_read(name: str, known: list[str]) -> bool:
    is_elsewhere = _ELSEWHERE.fullmatch(name) and not get_close_matches(name, known, n=1, cutoff=_ALMOST_THE_SAME)
    return name in known or bool(is_elsewhere)


@check("failpoint", why="the service kills itself there, as a power cut would: that is for tests")
def failpoints_armed(facts: Facts) -> Iterator[Seen]:
    """No failpoint is armed."""
    if point := facts.environment.get("SAGA_CRASH_AT"):
        yield problem(f"SAGA_CRASH_AT={point} is set", cure="unset SAGA_CRASH_AT SAGA_CRASH_ON")


@check(
    "api token", why="anybody who reaches the address could ask, so a service without a token refuses to start there"
)
def api_token(facts: Facts) -> Iterator[Seen]:
    """A service started here would not listen to others without a token."""
    host = facts.settings.http_host
    if is_loopback(host):
        yield fine(f"services that are started here listen on {host} only")
    elif facts.settings.api_token is None:
        yield problem(
            f"SAGA_HTTP_HOST={host} is not this machine alone, and SAGA_API_TOKEN is not set",
            cure="export SAGA_API_TOKEN=$(openssl rand -hex 32), or SAGA_HTTP_HOST=127.0.0.1",
        )
    elif facts.settings.api_token.get_secret_value() == DEMO_TOKEN:
        yield problem(
            f"SAGA_HTTP_HOST={host} is not this machine alone, and everybody knows SAGA_API_TOKEN={DEMO_TOKEN}",
            cure="export SAGA_API_TOKEN=$(openssl rand -hex 32)",
        )
    else:
        yield fine(f"services that are started here listen on {host}, and want a token")
