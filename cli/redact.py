"""What --verbose may show of a request: never a password, a token or a key. Pure."""

from __future__ import annotations

import re
from typing import Any

MASK = "***"
_SECRET_FIELD = re.compile(r"password|secret|token|credential|private|passphrase|csr|^code$", re.IGNORECASE)
_TOKEN = re.compile(r"\b(wcp|wcpe)_[A-Za-z0-9_-]{4,}")


def redact(value: Any) -> Any:
    """The value with secrets masked, at any depth, by the name of their field and by the form of our tokens."""
    if isinstance(value, dict):
        return {key: _mask(item) if _SECRET_FIELD.search(str(key)) else redact(item) for key, item in value.items()}
    if isinstance(value, list):
        return [redact(item) for item in value]
    return _TOKEN.sub(MASK, value) if isinstance(value, str) else value


def _mask(value: Any) -> Any:
    return value if value is None or isinstance(value, bool) else MASK
