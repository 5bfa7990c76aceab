"""The tokens of a service's API: which texts are tokens or digests, and how a service verifies a token.

A service needs the token's digest only. A process that holds the digest can verify the token, and cannot present it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, SecretStr, ValidationInfo

#: A token of fewer characters can be guessed, however slowly.
SHORTEST_TOKEN = 16
#: The prefix keeps a digest and a token apart: 64 hexadecimal digits are both.
_PREFIX = "sha256:"
_DIGEST = re.compile(rf"{_PREFIX}([0-9a-f]{{64}})")
_DIGEST_SUFFIX = "_digest"


@dataclass(frozen=True, slots=True)
class TokenDigest:
    """The SHA-256 of a token, and the fewest characters that the token may have."""

    sha256: bytes = field(repr=False)
    shortest: int = 1

    @classmethod
    def of(cls, token: str) -> TokenDigest:
        """Return the digest of this token."""
        return cls(hashlib.sha256(token.encode()).digest())

    def is_of(self, shown: bytes) -> bool:
        """Whether this is the token; the comparison takes as long wherever the two differ."""
        is_same = hmac.compare_digest(hashlib.sha256(shown).digest(), self.sha256)
        return is_same and len(shown) >= self.shortest


def token_digest(secret: SecretStr | None) -> TokenDigest | None:
    """Return the digest of a setting that is a token, or a digest already; None where it is not set."""
    if secret is None:
        return None
    text = secret.get_secret_value()
    if found := _DIGEST.fullmatch(text):
        # The length of the token is unknown until a client presents it.
        return TokenDigest(bytes.fromhex(found[1]), shortest=SHORTEST_TOKEN)
    return TokenDigest.of(text)


def _is_token(secret: SecretStr | None) -> SecretStr | None:
    if secret and secret.get_secret_value().startswith(_PREFIX):
        raise ValueError(
            f"it is a digest, by which services verify the token: give the token itself, without {_PREFIX}"
        )
    return secret


def _is_digest(secret: SecretStr | None) -> SecretStr | None:
    if secret and not _DIGEST.fullmatch(secret.get_secret_value()):
        raise ValueError(
            f"give {_PREFIX} and the token's SHA-256 in 64 lower-case hexadecimal digits, for example from `sha256sum`"
        )
    return secret


def _is_distinct(secret: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
    """Return the secret, unless another setting gives the same token, or the same right by another token."""
    own = info.field_name or ""
    for name, other in info.data.items():
        if secret is None or other is None or not name.removesuffix(_DIGEST_SUFFIX).endswith("token"):
            continue
        variable = f"SAGA_{name.upper()}"
        if name.removesuffix(_DIGEST_SUFFIX) == own.removesuffix(_DIGEST_SUFFIX):
            raise ValueError(f"{variable} is set, too: unset one of them")
        found, present = token_digest(secret), token_digest(other)
        if found and present and found.sha256 == present.sha256:
            raise ValueError(f"it is the token of {variable}, so a client that may read could write: give another")
    return secret


_Unset = BeforeValidator(lambda value: value or None)
Token = Annotated[SecretStr | None, _Unset, AfterValidator(_is_token), AfterValidator(_is_distinct)]
Digest = Annotated[SecretStr | None, _Unset, AfterValidator(_is_digest), AfterValidator(_is_distinct)]
