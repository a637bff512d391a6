"""Random secrets and how they rest; pure."""

from __future__ import annotations

import hashlib
import secrets
from typing import Final

SESSION_PREFIX: Final = "wcs_"
TOKEN_PREFIX: Final = "wcp_"  # noqa: S105 - a prefix, not a secret

RESET_PREFIX: Final = "wcr_"
LINK_PREFIX: Final = "wcl_"

_SECRET_BYTES: Final = 32
_ALPHABET: Final = "abcdefghjkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Without the characters that people mistake for each other."""


def new_secret(prefix: str) -> str:
    """A secret with 256 bits of randomness; its prefix lets scanners of leaked secrets recognise it."""
    return prefix + secrets.token_urlsafe(_SECRET_BYTES)


def new_password() -> str:
    """A one-time password of 24 characters (138 bits) that a person can type."""
    return "".join(secrets.choice(_ALPHABET) for _ in range(24))


def hash_secret(secret: str) -> str:
    """SHA-256 in hex; enough at rest, because the input is random and long."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()
