"""Stream grants: judged like jobs (signature, addressee, scope, time, once), then turned into a worker's order."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.core.acceptance import (
    CLOCK_TOLERANCE_SECONDS,
    require_addressee,
    require_known_keys,
    require_size,
    require_usable_bundle,
)
from agent.core.boundary import error_body
from agent.core.context import NodeContext
from agent.core.identity import Identity, TrustStore
from agent.core.ledger import Ledger
from shared.errors import FleetError, InvalidInputError, RefusedError, UnavailableError
from shared.protocol.envelope import Envelope, verify_envelope
from shared.protocol.grant import GRANT_TYPE, KIND_LOG_TAIL, MAX_GRANT_SECONDS, StreamGrant, decode_grant
from shared.protocol.local import OpenWorker, WorkerOpened
from shared.protocol.trust import JobKey, TrustBundle, is_action_allowed
from shared.protocol.worker import WorkerOrder
from shared.specs.base import Presence
from shared.specs.site import SITE_LOGS_DIR

NONCE_SECONDS: Final = MAX_GRANT_SECONDS + 2 * CLOCK_TOLERANCE_SECONDS
"""No grant is good for longer, so a nonce need not be remembered for longer."""

_ROOTS: Final[dict[str, Callable[[str], str]]] = {
    KIND_LOG_TAIL: lambda account: f"{SITE_LOGS_DIR}/{account}",
}
"""Kind of a stream to the folder beneath which it may open something. A kind that is not here is refused."""


def open_grant(envelope: Envelope, *, identity: Identity | None, bundle: TrustBundle | None, now: float) -> StreamGrant:
    """Every check of a grant that needs no memory.

    Raises:
        RefusedError: With the code of the check that failed.
    """
    require_size(envelope)
    if identity is None:
        raise RefusedError("this node is not enrolled", code="not_enrolled")
    keys = require_known_keys(envelope, require_usable_bundle(bundle, now=now), now=now)
    verifiers = {kid: Ed25519PublicKey.from_public_bytes(key.public_key) for kid, key in keys.items()}
    payload, signers = verify_envelope(envelope, payload_type=GRANT_TYPE, keys=verifiers)
    try:
        grant = decode_grant(payload)
    except InvalidInputError as error:
        raise RefusedError(error.message, code="malformed") from error
    require_addressee(grant, identity, noun="grant")
    _require_kind(grant, [keys[kid] for kid in signers])
    _require_time(grant, now=now)
    return grant


def _require_kind(grant: StreamGrant, signers: Iterable[JobKey]) -> None:
    if grant.kind not in _ROOTS:
        raise RefusedError(f"this agent has no streams of the kind {grant.kind[:40]!r}", code="unknown_action")
    if not any(is_action_allowed(key, grant.kind) for key in signers):
        raise RefusedError(f"the key may not grant {grant.kind}", code="out_of_scope")


def _require_time(grant: StreamGrant, *, now: float) -> None:
    context = {"now": now, "issued_at": grant.issued_at, "expires_at": grant.expires_at}
    if now < grant.issued_at - CLOCK_TOLERANCE_SECONDS:
        raise RefusedError("the grant is not valid yet", code="clock_skew", context=context)
    if now > grant.expires_at + CLOCK_TOLERANCE_SECONDS:
        raise RefusedError("the grant has expired", code="expired", context=context)


def require_tenant(grant: StreamGrant, ledger: Ledger) -> None:
    """Pass when the account is on this node and has the uid that the grant names (`unknown_account`)."""
    subject = f"account/{grant.account}"
    applied = ledger.find_applied(subject)
    if applied is None or applied.presence is Presence.ABSENT or ledger.find_uid(subject) != grant.uid:
        raise RefusedError(f"{grant.account[:40]!r} is no account of this node", code="unknown_account")


class UsedNonces:
    """Grants that were used, one empty file each, so that an executor that starts anew still knows them."""

    def __init__(self, folder: Path | None) -> None:
        """`folder`: None keeps them in memory, for a node that is in memory itself."""
        self._folder = folder
        self._taken: dict[bytes, float] = {}

    def take(self, nonce: bytes, *, now: float) -> None:
        """Use it up.

        Raises:
            RefusedError: It was used before (`grant_replayed`).
            UnavailableError: It cannot be kept.
        """
        self._taken = {known: at for known, at in self._taken.items() if at >= now - NONCE_SECONDS}
        if nonce in self._taken:
            raise RefusedError("this grant was used before", code="grant_replayed")
        self._taken[nonce] = now
        if self._folder is None:
            return
        try:
            self._folder.mkdir(mode=0o700, exist_ok=True)
            _forget_old(self._folder, now)
            path = self._folder / nonce.hex()
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            os.utime(path, (now, now))
        except FileExistsError as error:
            raise RefusedError("this grant was used before", code="grant_replayed") from error
        except OSError as error:
            raise UnavailableError(f"a grant cannot be remembered: {error}", code="host_error") from error


def _forget_old(folder: Path, now: float) -> None:
    for path in folder.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if path.stat().st_mtime < now - NONCE_SECONDS:
                path.unlink()


class WorkerGate:
    """From an envelope to the socket of a worker."""

    def __init__(self, *, node: NodeContext, identity: Identity | None, trust: TrustStore) -> None:
        self._node = node
        self._identity = identity
        self._trust = trust
        self._nonces = UsedNonces(node.workers.grants_dir if node.workers is not None else None)

    async def open(self, frame: OpenWorker, *, now: float) -> WorkerOpened:
        """Never raises: what goes wrong is in the answer."""
        try:
            grant = open_grant(frame.envelope, identity=self._identity, bundle=self._trust.bundle, now=now)
            require_tenant(grant, self._node.ledger)
            side = self._node.workers
            if side is None:
                raise UnavailableError("this node starts no workers", code="no_workers")
            self._nonces.take(grant.nonce, now=now)
            path = await side.launcher.launch(make_order(grant, peer_uids=side.peer_uids))
            return WorkerOpened(ref=frame.ref, socket_path=path)
        except FleetError as error:
            return WorkerOpened(ref=frame.ref, error=error_body(error))


def make_order(grant: StreamGrant, *, peer_uids: tuple[int, ...]) -> WorkerOrder:
    """What the worker of a verified grant is told."""
    return WorkerOrder(
        kind=grant.kind,
        account=grant.account,
        uid=grant.uid,
        root=_ROOTS[grant.kind](grant.account),
        path=grant.path,
        args=grant.args,
        max_bytes=grant.max_bytes,
        peer_uids=peer_uids,
    )
