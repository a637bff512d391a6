"""What the signer remembers of the audit log: the last end of it that it signed.

Who rewrites the log in the database cannot have a shorter one, or another one of the same length, signed: for that they
need this file too, which lies beside the keys.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from controller.fleet.signing.keyfiles import write_durably
from shared.audit_proof import ProofError, parse_checkpoint
from shared.errors import RefusedError

FILE_NAME: Final = "audit-checkpoint"


def require_ahead(pki_dir: Path, payload: bytes) -> None:
    """Pass an end of the log that the last signed one does not contradict.

    Raises:
        RefusedError: `malformed`, or `checkpoint_behind`: it is shorter, or as long with another hash.
    """
    try:
        wanted = parse_checkpoint(payload)
    except ProofError as error:
        raise RefusedError(str(error), code="malformed") from error
    path = pki_dir / FILE_NAME
    if not path.exists():
        return
    try:
        last = parse_checkpoint(path.read_bytes())
    except ProofError as error:
        raise RefusedError(f"{path} cannot be read: {error}", code="malformed") from error
    if wanted.number < last.number or (wanted.number == last.number and wanted.hash != last.hash):
        raise RefusedError(
            f"the audit log ends at {wanted.number}, and {last.number} entries were signed at {last.at}",
            code="checkpoint_behind",
            hint=f"Was the database restored from a backup? Then remove {path} once; else somebody rewrote the log.",
        )


def keep_checkpoint(pki_dir: Path, payload: bytes) -> None:
    """Remember that this was signed."""
    write_durably(pki_dir / FILE_NAME, payload)
