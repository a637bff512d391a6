"""The keys that nodes believe: one root key for trust bundles, job keys that change every few weeks.

`Signer` is what the rest of the controller sees, so that the keys can move to a process of their own.
"""

from __future__ import annotations

import secrets
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.db.base import utc_now
from controller.fleet.keyfiles import ensure_ed25519_key, ensure_pki_dir, write_durably
from shared.errors import BugError, UnavailableError
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, sign_envelope
from shared.protocol.trust import JobKey

JOB_KEY_LIFETIME: Final = timedelta(days=30)
JOB_KEY_OVERLAP: Final = timedelta(days=10)
"""A new key is made this long before the last one ends: a node that slept so long still finds a signature it knows."""
ROOT_KID: Final = "root-1"


class Signer(Protocol):
    """Signs; see also controller.jobs.ports.Signer, which this satisfies."""

    @property
    def cluster_id(self) -> str: ...

    @property
    def root_kid(self) -> str: ...

    @property
    def root_public_key(self) -> bytes:
        """32 bytes of Ed25519; pinned by every executor at enrolment."""
        ...

    async def sign_job(self, payload: bytes) -> Envelope:
        """Sign with every job key that is valid now."""
        ...

    async def sign_trust(self, payload: bytes) -> Envelope:
        """Sign a trust bundle with the root key."""
        ...

    async def current_job_keys(self) -> tuple[JobKey, ...]:
        """Public halves of all job keys that have not ended; makes the next key when it is time."""
        ...


class LocalSigner:
    """Keys in files of the controller's own pki folder. Touches nothing before `open`."""

    def __init__(self, pki_dir: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._dir = pki_dir
        self._clock = clock
        self._cluster_id = ""
        self._root_key: Ed25519PrivateKey | None = None
        self._keys: dict[str, Ed25519PrivateKey] = {}

    def open(self) -> None:
        """Read the keys, or make them. Again: nothing happens.

        Raises:
            UnavailableError: A key file cannot be read.
        """
        if self._root_key is not None:
            return
        ensure_pki_dir(self._dir)
        self._cluster_id = _read_cluster_id(self._dir / "cluster-id")
        self._root_key = ensure_ed25519_key(self._dir / "root.key")
        self._keys = {path.stem.removeprefix("job-"): ensure_ed25519_key(path) for path in self._dir.glob("job-*.key")}
        self._ensure_job_key()

    @property
    def _root(self) -> Ed25519PrivateKey:
        if self._root_key is None:
            raise BugError("the signer was not opened")
        return self._root_key

    @property
    def cluster_id(self) -> str:
        """UUID of this fleet."""
        if not self._cluster_id:
            raise BugError("the signer was not opened")
        return self._cluster_id

    @property
    def root_kid(self) -> str:
        """Key id of the root key."""
        return ROOT_KID

    @property
    def root_public_key(self) -> bytes:
        """32 bytes of Ed25519."""
        return _public_bytes(self._root)

    async def sign_job(self, payload: bytes) -> Envelope:
        """Sign with every job key that is valid now: during a change of keys any node knows one of them."""
        self._ensure_job_key()
        now = self._clock()
        active = {kid: key for kid, key in self._keys.items() if _issued_at(kid) <= now < _expires_at(kid)}
        if not active:
            raise UnavailableError("no job key is valid now", hint="Check the controller's clock.")
        return sign_envelope(JOB_TYPE, payload, active)

    async def sign_trust(self, payload: bytes) -> Envelope:
        """Sign a trust bundle with the root key."""
        return sign_envelope(TRUST_TYPE, payload, {ROOT_KID: self._root})

    async def current_job_keys(self) -> tuple[JobKey, ...]:
        """Public halves of all job keys that have not ended."""
        self._ensure_job_key()
        now = self._clock()
        return tuple(
            JobKey(
                kid=kid,
                public_key=_public_bytes(key),
                # Nodes whose clock is behind take jobs of a fresh key too.
                not_before=(_issued_at(kid) - timedelta(minutes=10)).timestamp(),
                expires_at=_expires_at(kid).timestamp(),
            )
            for kid, key in sorted(self._keys.items())
            if now < _expires_at(kid)
        )

    def _ensure_job_key(self) -> None:
        now = self._clock()
        if any(_issued_at(kid) <= now < _expires_at(kid) - JOB_KEY_OVERLAP for kid in self._keys):
            return
        kid = f"{int(now.timestamp())}-{secrets.token_hex(4)}"
        self._keys[kid] = ensure_ed25519_key(self._dir / f"job-{kid}.key")


def _issued_at(kid: str) -> datetime:
    """Key ids begin with the second they were made in, so that a key needs no second file."""
    return datetime.fromtimestamp(int(kid.partition("-")[0]), UTC)


def _expires_at(kid: str) -> datetime:
    return _issued_at(kid) + JOB_KEY_LIFETIME


def _public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def _read_cluster_id(path: Path) -> str:
    if not path.exists():
        write_durably(path, str(uuid.uuid4()).encode())
    return path.read_text(encoding="ascii").strip()
