"""What makes the audit log provable: the hash of an entry, a signed checkpoint, and the lines of an export.

Pure, and of the standard library alone: the controller writes the chain with it, and the command line verifies an
export with the same lines of code on a machine that has no controller.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from shared.ed25519 import is_signed_by

GENESIS_HASH: Final = "0" * 64
FORMAT: Final = "wcp360-audit-1"
CHECKPOINT_TYPE: Final = "application/vnd.wcp360.audit-checkpoint.v1+json"
PLAIN_FIELDS: Final = ("number", "at", "actor", "actor_name", "request_id", "action", "target", "target_name")
LATER_FIELDS: Final = ("address", "account_id", "client_id", "reseller_id")
"""Hashed where an entry has them: an entry without one has the hash that it had before the field existed."""
STATE_FIELDS: Final = ("before", "after")

_SUFFIX: Final = ',"kind":"entry","previous_hash":"%s","hash":"%s"}'
_SUFFIX_LENGTH: Final = len(_SUFFIX % (GENESIS_HASH, GENESIS_HASH))
PROVEN: Final = object()
"""Key of what was found to be the hash of an entry's bytes. No file can say it: a key of JSON is text."""
_ENCODE = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False).encode


class ProofError(ValueError):
    """This is no export, no checkpoint, or not a whole one."""


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The end of the log as it was at some moment, signed by the controller's root key."""

    cluster_id: str
    number: int
    hash: str
    at: str
    """ISO 8601, UTC."""


def render_canonical(value: Mapping[str, Any]) -> bytes:
    """JSON with its keys in order and nothing between them: the same bytes for the same value, everywhere."""
    return _ENCODE(value).encode()


def hash_entry(entry: Mapping[str, Any]) -> str:
    """SHA-256 in hex over the predecessor's hash and the entry's own content.

    Args:
        entry: All fields of an entry; `at` as text, ISO 8601 in UTC with microseconds.
    """
    return hash_content(str(entry["previous_hash"]), render_canonical(select_content(entry)))


def select_content(entry: Mapping[str, Any]) -> dict[str, Any]:
    """What of an entry is hashed, beside its predecessor's hash."""
    content = {name: entry[name] for name in PLAIN_FIELDS}
    for name in STATE_FIELDS:
        content[name] = entry[name]
    for name in LATER_FIELDS:
        if entry.get(name) is not None:
            content[name] = entry[name]
    return content


def hash_content(previous_hash: str, content: bytes) -> str:
    """SHA-256 in hex.

    Args:
        previous_hash: 64 digits.
        content: `render_canonical` of `select_content`.
    """
    return hashlib.sha256(previous_hash.encode() + b"\n" + content).hexdigest()


def find_fault(entry: Mapping[str, Any], number: int, previous_hash: str) -> str:
    """Why this entry cannot follow the one with this number and hash; empty when it does."""
    if entry["number"] != number + 1:
        return f"entry {number + 1} is missing"
    if entry["previous_hash"] != previous_hash:
        return f"entry {entry['number']} does not continue entry {number}"
    return find_change(entry)


def find_change(entry: Mapping[str, Any]) -> str:
    """Why this entry is not what was written; empty when it is."""
    proven: Mapping[Any, Any] = entry
    if proven.get(PROVEN) == entry["hash"] or entry["hash"] == hash_entry(entry):
        return ""
    return f"entry {entry['number']} was changed after it was written"


# --- checkpoints ---------------------------------------------------------------------------------------------------


def render_checkpoint(checkpoint: Checkpoint) -> str:
    """What is signed, as text."""
    content = {name: getattr(checkpoint, name) for name in ("cluster_id", "number", "hash", "at")}
    return render_canonical(content).decode()


def parse_checkpoint(payload: str | bytes) -> Checkpoint:
    """Decode what was signed.

    Raises:
        ProofError: It is none.
    """
    try:
        content = json.loads(payload)
        found = Checkpoint(**content)
    except (ValueError, TypeError) as error:
        raise ProofError(f"not a checkpoint: {error}") from error
    texts = (found.cluster_id, found.hash, found.at)
    if not all(isinstance(text, str) for text in texts) or type(found.number) is not int or found.number < 1:
        raise ProofError("not a checkpoint: a field has another type")
    return found


def is_checkpoint_signed(payload: str, signature: str, public_key: bytes) -> bool:
    """Whether the owner of the key signed it. Source: DSSE protocol.md, "PAE"; RFC 8032.

    Args:
        payload: As `render_checkpoint` wrote it, byte for byte.
        signature: base64.
        public_key: 32 bytes.
    """
    raw = payload.encode()
    encoded = b"DSSEv1 %d %s %d %s" % (len(CHECKPOINT_TYPE), CHECKPOINT_TYPE.encode(), len(raw), raw)
    try:
        return is_signed_by(public_key, encoded, base64.b64decode(signature, validate=True))
    except (binascii.Error, ValueError):
        return False


# --- an export -----------------------------------------------------------------------------------------------------


def render_line(record: Mapping[str, Any]) -> bytes:
    """A record as a line of JSON. An entry begins with exactly the bytes that its hash is made of."""
    if record["kind"] != "entry":
        return render_canonical(record) + b"\n"
    content = render_canonical(select_content(record))
    return content[:-1] + (_SUFFIX % (record["previous_hash"], record["hash"])).encode() + b"\n"


def _find_proof(line: str) -> str | None:
    """The hash of an entry's line as it stands there: not to write its content once more makes the walk faster."""
    end = len(line) - _SUFFIX_LENGTH
    previous_hash, value = line[end + 33 : end + 97], line[-66:-2]
    if end < 1 or line[end:] != _SUFFIX % (previous_hash, value):
        return None
    return hash_content(previous_hash, line[:end].encode() + b"}")


def parse_lines(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    """The records of an export in JSON Lines.

    Raises:
        ProofError: A line is none; a file that was cut off ends in half of one.
    """
    for number, raw in enumerate(lines, 1):
        line = raw.rstrip("\r\n")
        if not line:
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise ProofError(f"line {number} is no JSON: the file was cut off or edited") from error
        if not isinstance(record, dict) or "kind" not in record:
            raise ProofError(f"line {number} is no record of an export")
        proven: dict[Any, Any] = record
        proven[PROVEN] = _find_proof(line)
        yield record
