"""Who may log in to an account over SSH: its public keys, each with until when and from where."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from typing import ClassVar, Final

import msgspec

from shared.errors import InvalidInputError
from shared.specs.account import MAX_TENANT_UID, MIN_TENANT_UID
from shared.specs.base import Spec, Stage
from shared.types.names import ResourceKey, UnixName, parse_unix_name

MAX_SSH_KEYS: Final = 100
"""Of one account: sshd reads all of them at each attempt."""
MAX_KEY_NETWORKS: Final = 50
MAX_BLOB_CHARACTERS: Final = 6000
"""base64 of an RSA key of 32768 bits, generously."""
SSH_KEY_TYPES: Final = frozenset(
    {
        "ssh-ed25519",
        "ssh-rsa",
        "ecdsa-sha2-nistp256",
        "ecdsa-sha2-nistp384",
        "ecdsa-sha2-nistp521",
        "sk-ssh-ed25519@openssh.com",
        "sk-ecdsa-sha2-nistp256@openssh.com",
    }
)
"""Source: sshd_config(5), PubkeyAcceptedAlgorithms, without certificates; ssh-rsa keys sign with SHA-2."""
LATEST_EXPIRY: Final = 253_402_300_799
"""The end of the year 9999: sshd reads four digits."""

_BLOB = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class SshKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One public key, without options and comment: both are ours to write."""

    key_type: str
    blob: str
    """base64, as in the middle of a line of authorized_keys."""
    expires_at: int | None = None
    """Seconds since the epoch; from then on sshd refuses it, whether or not the controller is there."""
    networks: tuple[str, ...] = ()
    """In CIDR notation, canonical; empty: from everywhere."""

    def __post_init__(self) -> None:
        if self.key_type not in SSH_KEY_TYPES:
            raise InvalidInputError(f"{self.key_type[:60]!r} is no type of key that may log in", field="key_type")
        if len(self.blob) > MAX_BLOB_CHARACTERS or not _BLOB.fullmatch(self.blob):
            raise InvalidInputError("the key is not base64", field="blob")
        if not is_blob_of(self.blob, self.key_type):
            raise InvalidInputError("the key is not of its type", field="blob")
        if self.expires_at is not None and not 0 <= self.expires_at <= LATEST_EXPIRY:
            raise InvalidInputError("expires_at is outside the years that sshd reads", field="expires_at")
        if len(self.networks) > MAX_KEY_NETWORKS:
            raise InvalidInputError(f"at most {MAX_KEY_NETWORKS} networks", field="networks")
        for network in self.networks:
            _require_network(network)


class SshAccessSpec(Spec, frozen=True, kw_only=True, tag="ssh_access"):
    """The keys of one account. An account without this spec cannot log in."""

    STAGE: ClassVar[Stage] = Stage.RUNTIME

    account: UnixName
    uid: int
    keys: tuple[SshKey, ...] = ()

    def __post_init__(self) -> None:
        parse_unix_name(self.account)
        if not MIN_TENANT_UID <= self.uid <= MAX_TENANT_UID:
            raise InvalidInputError(f"uid {self.uid} is outside the tenants' range", field="uid")
        if len(self.keys) > MAX_SSH_KEYS:
            raise InvalidInputError(f"an account has at most {MAX_SSH_KEYS} keys", field="keys")
        if len({key.blob for key in self.keys}) != len(self.keys):
            raise InvalidInputError("a key is named twice", field="keys")

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(f"ssh_access/{self.account}")


def is_blob_of(blob: str, key_type: str) -> bool:
    """Whether the base64 text holds a key that calls itself so. Source: RFC 4253 section 6.6."""
    try:
        raw = base64.b64decode(blob, validate=True)
    except binascii.Error:
        return False
    name = key_type.encode()
    return raw.startswith(len(name).to_bytes(4, "big") + name) and len(raw) > 4 + len(name)


def _require_network(text: str) -> None:
    try:
        canonical = str(ipaddress.ip_network(text))
    except ValueError:
        canonical = ""
    if canonical != text or "%" in text:
        raise InvalidInputError(f"{text[:60]!r} is no network in its canonical form", field="networks")
