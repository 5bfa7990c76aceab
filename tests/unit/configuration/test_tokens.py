"""Tokens and digests of tokens are told apart, and each token gives one right."""

from __future__ import annotations

import pytest

from tests.end_to_end.test_token_digests import digest_of
from toolkit.configuration.environment import DEMO_TOKEN, guard_token
from toolkit.configuration.settings import load_settings
from toolkit.errors import SettingsError

TOKEN, OTHER = "a-token-for-everything", "a-token-for-reading"
DIGEST = digest_of(TOKEN)


def test_a_digest_verifies_its_token_alone(monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN_DIGEST", DIGEST)

    digest = load_settings().write_digest

    assert digest
    assert [digest.is_of(each.encode()) for each in (TOKEN, OTHER, DIGEST, DIGEST[7:], "")] == [True, *[False] * 4]


def test_a_short_token_is_refused_by_its_digest(monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN_DIGEST", digest_of("fifteen letters"))

    digest = load_settings().write_digest

    assert digest
    assert not digest.is_of(b"fifteen letters")


@pytest.mark.parametrize("value", [TOKEN, DIGEST[7:], DIGEST.upper(), DIGEST[:-1], f"{DIGEST}0"])
def test_what_is_no_digest_is_refused_and_hidden(monkeypatch, value):
    monkeypatch.setenv("SAGA_API_TOKEN_DIGEST", value)

    with pytest.raises(SettingsError, match=r"^SAGA_API_TOKEN_DIGEST='\*\*\*' is not allowed: give sha256:") as caught:
        load_settings()

    assert value not in str(caught.value)


@pytest.mark.parametrize("variable", ["SAGA_API_TOKEN", "SAGA_API_READ_TOKEN"])
def test_a_digest_is_not_accepted_as_token(monkeypatch, variable):
    monkeypatch.setenv(variable, DIGEST)

    with pytest.raises(SettingsError, match=rf"^{variable}='\*\*\*' is not allowed: it is a digest"):
        load_settings()


@pytest.mark.parametrize("right", ["API_TOKEN", "API_READ_TOKEN"])
def test_a_token_beside_its_digest_is_refused(monkeypatch, right):
    monkeypatch.setenv(f"SAGA_{right}", TOKEN)
    monkeypatch.setenv(f"SAGA_{right}_DIGEST", digest_of(TOKEN))

    with pytest.raises(SettingsError, match=f"SAGA_{right} is set, too: unset one of them"):
        load_settings()


@pytest.mark.parametrize("writing", [("SAGA_API_TOKEN", TOKEN), ("SAGA_API_TOKEN_DIGEST", DIGEST)])
@pytest.mark.parametrize("reading", [("SAGA_API_READ_TOKEN", TOKEN), ("SAGA_API_READ_TOKEN_DIGEST", DIGEST)])
def test_one_token_for_reading_and_writing_is_refused(monkeypatch, writing, reading):
    for variable, value in (writing, reading):
        monkeypatch.setenv(variable, value)

    with pytest.raises(SettingsError, match=f"^{reading[0]}=.* it is the token of {writing[0]}, so a client that may"):
        load_settings()


def test_the_known_tokens_digest_needs_this_machine(monkeypatch):
    monkeypatch.setenv("SAGA_API_TOKEN_DIGEST", digest_of(DEMO_TOKEN))

    with pytest.raises(SettingsError, match="SAGA_API_TOKEN=demo-token-everybody-knows is well known"):
        guard_token("SAGA_API_TOKEN", load_settings().api_token_digest, "the address is reached from other machines")
