"""Signatures of messages; pure. Source: the Standard Webhooks specification 1.0.0, https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Sequence
from typing import Final

ID_HEADER: Final = "webhook-id"
TIMESTAMP_HEADER: Final = "webhook-timestamp"
SIGNATURE_HEADER: Final = "webhook-signature"
SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - a prefix, not a secret
_SECRET_BYTES: Final = 32
"""The specification wants 24 to 64."""


def new_webhook_secret() -> str:
    """`whsec_` and the key in base64."""
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()


def sign_message(keys: Sequence[str], message_id: str, timestamp: int, body: str) -> dict[str, str]:
    """The three headers of a message; one signature for each secret.

    Args:
        keys: Secrets as `new_webhook_secret` makes them.
        message_id: Of the message.
        timestamp: Of this attempt, in seconds since 1970.
        body: Exactly what is sent.
    """
    content = f"{message_id}.{timestamp}.{body}".encode()
    signatures = (
        hmac.digest(base64.b64decode(key.removeprefix(SECRET_PREFIX)), content, hashlib.sha256) for key in keys
    )
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: " ".join(f"v1,{base64.b64encode(signature).decode()}" for signature in signatures),
    }
