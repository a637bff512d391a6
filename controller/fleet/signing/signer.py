"""The keys that nodes believe: a root key for trust bundles, job keys that change every few weeks, the authorities.

`Signer` is what the rest of the controller sees. `LocalSigner` holds the keys in this process; `SignerClient`
(signer_client.py) asks a process of its own, and then no other process can read a key.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from controller.db.base import utc_now
from controller.fleet.identity.authorities import Arrangement, Authorities, AuthorityRing
from controller.fleet.identity.authority import Authority, IssuedCertificate, parse_csr
from controller.fleet.signing.checkpoints import keep_checkpoint, require_ahead
from controller.fleet.signing.job_keys import JOB_KEY_LIFETIME, JOB_KEY_OVERLAP, JobKeyRing, public_bytes
from controller.fleet.signing.keyfiles import ensure_ed25519_key, ensure_pki_dir, write_durably
from controller.fleet.signing.release_keys import ReleaseKeyRing
from shared.audit_proof import CHECKPOINT_TYPE
from shared.errors import BugError, UnavailableError
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, sign_envelope
from shared.protocol.grant import GRANT_TYPE
from shared.protocol.release import RELEASE_KEYS_TYPE, RELEASE_TYPE, ReleaseKey
from shared.protocol.trust import JobKey

__all__ = ["JOB_KEY_LIFETIME", "JOB_KEY_OVERLAP", "ROOT_KID", "LocalSigner", "Signer"]

ROOT_KID: Final = "root-1"


class Signer(Protocol):
    """Signs and issues; see also controller.jobs.ports.Signer, which this satisfies.

    Every method raises UnavailableError when the keys cannot be reached, and RefusedError when the signer will not.
    """

    def open(self) -> None:
        """Make the first contact; blocks for a moment. Again: nothing happens."""
        ...

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

    async def sign_grant(self, payload: bytes) -> Envelope:
        """Sign a stream grant with every job key that is valid now."""
        ...

    async def sign_trust(self, payload: bytes) -> Envelope:
        """Sign a trust bundle with the root key."""
        ...

    async def current_job_keys(self) -> tuple[JobKey, ...]:
        """Public halves of all job keys that have not ended; makes the next key when it is time."""
        ...

    async def revoked_job_keys(self) -> tuple[str, ...]:
        """Key ids that nodes are to be told not to believe."""
        ...

    async def rotate_job_key(self) -> JobKey:
        """A new job key now; the old ones sign beside it for the overlap. Again within a minute: the same key."""
        ...

    async def revoke_job_key(self, kid: str) -> None:
        """Never sign with this key again; a new one is made if none is left.

        Raises:
            NotFoundError: There is no such key.
        """
        ...

    async def sign_release(self, payload: bytes) -> Envelope:
        """Sign a release's manifest with every release key that is valid now."""
        ...

    async def sign_release_keys(self, payload: bytes) -> Envelope:
        """Sign a list of release keys with the root key."""
        ...

    async def sign_checkpoint(self, payload: bytes) -> Envelope:
        """Sign the end of the audit log with the root key (RefusedError: it goes back behind an earlier one)."""
        ...

    async def current_release_keys(self) -> tuple[ReleaseKey, ...]:
        """Public halves of the release keys that sign now; makes the next key when it is time."""
        ...

    async def issue_node_certificate(self, csr_pem: str, *, node_id: str) -> IssuedCertificate:
        """A client certificate for the request's public key; every name in it is the controller's own."""
        ...

    def issue_server_certificate(self, csr_pem: str, names: tuple[str, ...]) -> str:
        """A listener's certificate and its authority, as PEM; blocks for a moment."""
        ...

    def read_authorities(self) -> Authorities:
        """Who is trusted and who issues; blocks for a moment."""
        ...

    async def list_authorities(self) -> Authorities:
        """Who is trusted and who issues."""
        ...

    async def arrange_authorities(self, arrangement: Arrangement) -> Authorities:
        """Make it so; authorities that are named for the first time are made. Again: nothing happens."""
        ...


class LocalSigner:
    """Keys in files of the controller's own pki folder. Touches nothing before `open`."""

    def __init__(self, pki_dir: Path, *, clock: Callable[[], datetime] = utc_now) -> None:
        self._dir = pki_dir
        self._clock = clock
        self._cluster_id = ""
        self._root_key: Ed25519PrivateKey | None = None
        self._jobs = JobKeyRing(pki_dir, clock=clock)
        self._releases = ReleaseKeyRing(pki_dir, clock=clock)
        self._authorities = AuthorityRing(pki_dir, clock=clock)

    def open(self) -> None:
        """Read the keys, or make them. Again: nothing happens.

        Raises:
            UnavailableError: A key file cannot be read.
        """
        if self._root_key is not None:
            return
        ensure_pki_dir(self._dir)
        self._cluster_id = _read_cluster_id(self._dir / "cluster-id")
        root_key = ensure_ed25519_key(self._dir / "root.key")
        self._authorities.open()
        self._jobs.open()
        self._root_key = root_key

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
        return public_bytes(self._root)

    @property
    def authority(self) -> Authority:
        """The one that issues node certificates now, with its key."""
        return self._authorities.issuer

    # --- jobs and trust -----------------------------------------------------------------------------------------------

    async def sign_job(self, payload: bytes) -> Envelope:
        """Sign with every job key that is valid now: during a change of keys any node knows one of them."""
        return self._sign_with_job_keys(JOB_TYPE, payload)

    async def sign_grant(self, payload: bytes) -> Envelope:
        """Sign a stream grant with every job key that is valid now."""
        return self._sign_with_job_keys(GRANT_TYPE, payload)

    def _sign_with_job_keys(self, payload_type: str, payload: bytes) -> Envelope:
        active = self._jobs.active()
        if not active:
            raise UnavailableError("no job key is valid now", hint="Check the controller's clock.")
        return sign_envelope(payload_type, payload, active)

    async def sign_trust(self, payload: bytes) -> Envelope:
        """Sign a trust bundle with the root key."""
        return sign_envelope(TRUST_TYPE, payload, {ROOT_KID: self._root})

    async def current_job_keys(self) -> tuple[JobKey, ...]:
        """Public halves of all job keys that have not ended."""
        return self._jobs.list_public()

    async def revoked_job_keys(self) -> tuple[str, ...]:
        """Key ids that nodes are to be told not to believe."""
        return self._jobs.list_revoked()

    async def rotate_job_key(self) -> JobKey:
        """A new job key now."""
        return self._jobs.rotate()

    async def revoke_job_key(self, kid: str) -> None:
        """Never sign with this key again.

        Raises:
            NotFoundError: There is no such key.
        """
        self._jobs.revoke(kid)

    # --- releases -----------------------------------------------------------------------------------------------------

    async def sign_release(self, payload: bytes) -> Envelope:
        """Sign a release's manifest."""
        return sign_envelope(RELEASE_TYPE, payload, self._releases.active())

    async def sign_release_keys(self, payload: bytes) -> Envelope:
        """Sign a list of release keys with the root key."""
        return sign_envelope(RELEASE_KEYS_TYPE, payload, {ROOT_KID: self._root})

    async def sign_checkpoint(self, payload: bytes) -> Envelope:
        """Sign the end of the audit log, unless an earlier one was signed that contradicts it.

        Raises:
            RefusedError: `checkpoint_behind`.
        """
        require_ahead(self._dir, payload)
        envelope = sign_envelope(CHECKPOINT_TYPE, payload, {ROOT_KID: self._root})
        keep_checkpoint(self._dir, payload)
        return envelope

    async def sign_document(self, payload_type: str, payload: bytes) -> Envelope:
        """Sign one of the kinds of documents with the keys that belong to it (KeyError for any other kind)."""
        sign = {
            GRANT_TYPE: self.sign_grant,
            TRUST_TYPE: self.sign_trust,
            RELEASE_TYPE: self.sign_release,
            RELEASE_KEYS_TYPE: self.sign_release_keys,
            CHECKPOINT_TYPE: self.sign_checkpoint,
        }
        return await sign[payload_type](payload)

    async def current_release_keys(self) -> tuple[ReleaseKey, ...]:
        """Public halves of the release keys that sign now."""
        return self._releases.list_public()

    # --- certificates -------------------------------------------------------------------------------------------------

    async def issue_node_certificate(self, csr_pem: str, *, node_id: str) -> IssuedCertificate:
        """A client certificate for the request's public key."""
        return self._authorities.issuer.issue_node_certificate(
            parse_csr(csr_pem), cluster_id=self.cluster_id, node_id=node_id, now=self._clock()
        )

    def issue_server_certificate(self, csr_pem: str, names: tuple[str, ...]) -> str:
        """A listener's certificate and its authority, as PEM."""
        return self._authorities.server_issuer.issue_server_certificate(parse_csr(csr_pem), names, now=self._clock())

    def read_authorities(self) -> Authorities:
        """Who is trusted and who issues."""
        return self._authorities.describe()

    async def list_authorities(self) -> Authorities:
        """Who is trusted and who issues."""
        return self._authorities.describe()

    async def arrange_authorities(self, arrangement: Arrangement) -> Authorities:
        """Make it so."""
        return self._authorities.arrange(arrangement)


def _read_cluster_id(path: Path) -> str:
    if not path.exists():
        write_durably(path, str(uuid.uuid4()).encode())
    return path.read_text(encoding="ascii").strip()
