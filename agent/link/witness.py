"""Remembers every end of the audit log that the controller shows, and signs it, unless it contradicts an earlier one.

Whoever rewrites the log at the controller, with all its keys, does not have this file. It is only ever added to; beyond
twice KEPT_LINES the oldest go. The key of the node's certificate signs; `cryptography` is imported when the first end
is to be signed (and then stays, 10 MB).
"""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from agent.link.settings import NodePaths
from shared.audit_proof import Checkpoint, ProofError, parse_checkpoint
from shared.audit_witness import Statement, render_statement, witness_message
from shared.errors import InvalidInputError
from shared.protocol.witness import CheckpointSeen, ShowCheckpoint

KEPT_LINES: Final = 2000
"""Of one an hour: three months."""
FORK: Final = "checkpoint_fork"
BEHIND: Final = "checkpoint_behind"

_log = logging.getLogger(__name__)


class NodeSignature(msgspec.Struct, frozen=True, kw_only=True):
    """By the node's key."""

    fingerprint: str
    """SHA-256 in hex of the certificate whose key it was."""
    signature: str
    """base64."""


Sign = Callable[[bytes], NodeSignature]
"""Signs a message with the node's key; blocks. Raises FleetError or OSError."""


class Witness:
    """Of one node. Methods block; they are called in threads, one at a time."""

    def __init__(
        self, paths: NodePaths, node_id: str, sign: Sign | None = None, *, kept_lines: int = KEPT_LINES
    ) -> None:
        self._kept_lines = kept_lines
        self._path = paths.audit_record
        self._node_id = node_id
        self._sign = sign or (lambda message: _sign_for_real(paths, message))
        self._lock = threading.Lock()

    def take(self, shown: ShowCheckpoint) -> CheckpointSeen:
        """Note what is shown, sign it if that is wished, or refuse it.

        Changes: the node's record.

        Raises:
            InvalidInputError: It is no checkpoint; or the key cannot be read, and the end is noted all the same.
            OSError: The disk; nothing is signed that is not noted.
        """
        try:
            checkpoint = parse_checkpoint(shown.payload)
        except ProofError as error:
            raise InvalidInputError(f"the controller showed no end of its audit log: {error}") from error
        with self._lock:
            refusal, known = self._judge(checkpoint)
            if refusal:
                return CheckpointSeen(number=checkpoint.number, hash=checkpoint.hash, refusal=refusal, known=known)
            if not known:
                self._append(shown)
        if not shown.wants_signature:
            return CheckpointSeen(number=checkpoint.number, hash=checkpoint.hash)
        return self._witness(checkpoint)

    def _witness(self, checkpoint: Checkpoint) -> CheckpointSeen:
        statement = render_statement(
            Statement(
                cluster_id=checkpoint.cluster_id,
                node_id=self._node_id,
                number=checkpoint.number,
                hash=checkpoint.hash,
                at=checkpoint.at,
                seen_at=datetime.now(UTC).isoformat(timespec="seconds"),
            )
        )
        made = self._sign(witness_message(statement))
        return CheckpointSeen(
            number=checkpoint.number,
            hash=checkpoint.hash,
            statement=statement,
            signature=made.signature,
            fingerprint=made.fingerprint,
        )

    def _judge(self, shown: Checkpoint) -> tuple[str, str]:
        """Why it is refused, and what was shown before; without a reason: the very same, if it is noted already."""
        last: Checkpoint | None = None
        last_payload = ""
        for payload in self._read():
            known = parse_checkpoint(payload)
            if known.cluster_id != shown.cluster_id:
                continue  # of a controller that this machine belonged to before
            if known.number == shown.number:
                return ("" if known.hash == shown.hash else FORK), payload
            if last is None or known.number > last.number:
                last, last_payload = known, payload
        if last is not None and last.number > shown.number:
            return BEHIND, last_payload
        return "", ""

    def _read(self) -> list[str]:
        """Payloads, oldest first. The half of a line that a crash left is passed over, and so is nothing else."""
        try:
            lines = self._path.read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            try:
                payload = str(json.loads(line)["payload"])
                parse_checkpoint(payload)
            except (ValueError, KeyError, TypeError):
                _log.warning("a line of %s cannot be read", self._path)
                continue
            found.append(payload)
        return found

    def _append(self, shown: ShowCheckpoint) -> None:
        line = json.dumps({"payload": shown.payload, "kid": shown.kid, "signature": shown.signature}) + "\n"
        kept = self._path.read_bytes().splitlines(keepends=True) if self._path.exists() else []
        if len(kept) >= 2 * self._kept_lines:
            kept = kept[-self._kept_lines :]
            self._shorten(kept)
        # After half a line of a crash the next one begins anew.
        start = b"" if not kept or kept[-1].endswith(b"\n") else b"\n"
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self._path, flags, 0o600)
        try:
            os.write(descriptor, start + line.encode())
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _shorten(self, lines: list[bytes]) -> None:
        fresh = self._path.with_suffix(".new")
        with fresh.open("wb") as file:
            file.writelines(lines)
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(self._path)


def _sign_for_real(paths: NodePaths, message: bytes) -> NodeSignature:
    from agent.link.witness_signing import sign_with_node_key  # noqa: PLC0415 - see the top

    return sign_with_node_key(paths, message)
