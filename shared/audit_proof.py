"""What makes the audit log provable: the hash of an entry, a signed checkpoint, and the walk along an export.

Pure, and of the standard library alone: the controller writes the chain with it, and the command line verifies an
export with the same lines of code on a machine that has no controller.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from shared.ed25519 import is_signed_by

GENESIS_HASH: Final = "0" * 64
FORMAT: Final = "wcp360-audit-1"
CHECKPOINT_TYPE: Final = "application/vnd.wcp360.audit-checkpoint.v1+json"
PLAIN_FIELDS: Final = ("number", "at", "actor", "actor_name", "request_id", "action", "target", "target_name")
LATER_FIELDS: Final = ("address", "account_id", "client_id")
"""Hashed where an entry has them: an entry without one has the hash that it had before the field existed."""
STATE_FIELDS: Final = ("before", "after")

_SUFFIX: Final = ',"kind":"entry","previous_hash":"%s","hash":"%s"}'
_SUFFIX_LENGTH: Final = len(_SUFFIX % (GENESIS_HASH, GENESIS_HASH))
_PROVEN: Final = object()
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


@dataclass(slots=True)
class ProofReport:
    """What a walk along an export found."""

    entries: int = 0
    """How many were read and found good."""
    first: int = 0
    last: int = 0
    head_hash: str = GENESIS_HASH
    """Of the last good entry."""
    checkpoints: int = 0
    """Whose signature is good and which fit the entries."""
    proven_until: int = 0
    """Up to this entry a checkpoint proves what the file says; 0: none does."""
    is_filtered: bool = False
    """It holds a selection: each entry is proven by itself, and nothing says that none is missing."""
    first_bad_number: int | None = None
    reason: str = ""
    """Empty: intact."""
    notes: list[str] = field(default_factory=list)


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
    return _find_change(entry)


def _find_change(entry: Mapping[str, Any]) -> str:
    proven: Mapping[Any, Any] = entry
    if proven.get(_PROVEN) == entry["hash"] or entry["hash"] == hash_entry(entry):
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
        proven[_PROVEN] = _find_proof(line)
        yield record


def verify_export(
    records: Iterable[Mapping[str, Any]], *, public_key: bytes | None = None, expected_head: str | None = None
) -> ProofReport:
    """Walk along an export and stop at the first thing that does not fit.

    Args:
        records: As `parse_lines` or the reader of CSV gives them.
        public_key: The controller's root key, known from elsewhere; None: the one that the file names is believed.
        expected_head: Hash of an entry that was noted earlier and must be in it.
    """
    walk = _Walk(public_key, expected_head)
    try:
        for record in records:
            walk.take(record)
        walk.finish()
    except ProofError as error:
        walk.report.reason = str(error)
    except (KeyError, TypeError, ValueError) as error:
        walk.report.reason = f"a record is not as an export has it: {type(error).__name__} {error}"
    if walk.report.reason and walk.report.first_bad_number is None:
        walk.report.first_bad_number = walk.report.last + 1
    return walk.report


class _Walk:
    """One pass over the records; what it found is in `report`."""

    def __init__(self, public_key: bytes | None, expected_head: str | None) -> None:
        self.report = ProofReport()
        self._key = public_key
        self._expected = expected_head
        self._is_expected_seen = expected_head in (None, GENESIS_HASH)
        self._head: Mapping[str, Any] | None = None
        self._waiting: dict[int, str] = {}
        """Checkpoints whose entry has not come yet: number to hash."""
        self._is_over = False

    def take(self, record: Mapping[str, Any]) -> None:
        """Judge the next record."""
        kind = record["kind"]
        if self._is_over:
            raise ProofError("something follows the end of the export")
        if (kind == "head") != (self._head is None):
            raise ProofError("an export begins with its head, and has one")
        if kind == "entry":
            self._take_entry(record)
        elif kind == "head":
            self._take_head(record)
        elif kind == "checkpoint":
            self._take_checkpoint(record)
        elif kind == "end":
            self._take_end(record)
        else:
            raise ProofError(f"an export has no {str(kind)[:40]}")

    def _take_head(self, head: Mapping[str, Any]) -> None:
        if head["format"] != FORMAT:
            raise ProofError(f"this is no export of the audit log ({FORMAT})")
        self._head = head
        self.report.is_filtered = bool(head["is_filtered"])
        if self._key is None:
            self._key = base64.b64decode(head["public_key"])
            self.report.notes.append("the checkpoints were checked with the key that the file itself names")

    def _take_checkpoint(self, record: Mapping[str, Any]) -> None:
        found = parse_checkpoint(record["payload"])
        if not is_checkpoint_signed(record["payload"], record["signature"], self._key or b""):
            raise ProofError(f"the checkpoint at entry {found.number} is not signed by the controller's key")
        if found.cluster_id != self._require_head()["cluster_id"]:
            raise ProofError(f"the checkpoint at entry {found.number} is of another controller")
        self._waiting[found.number] = found.hash

    def _take_entry(self, entry: Mapping[str, Any]) -> None:
        report = self.report
        number, is_first = entry["number"], report.entries == 0
        fault = ""
        if is_first or report.is_filtered:
            fault = self._find_first_fault(entry)
        if not fault and not report.is_filtered:
            before = number - 1 if is_first else report.last
            fault = find_fault(entry, before, entry["previous_hash"] if is_first else report.head_hash)
        if fault:
            raise ProofError(fault)
        if is_first:
            report.first = number
            self._pass(number - 1, entry["previous_hash"])
        report.entries, report.last, report.head_hash = report.entries + 1, number, entry["hash"]
        self._pass(number, entry["hash"])

    def _find_first_fault(self, entry: Mapping[str, Any]) -> str:
        number = entry["number"]
        if self.report.is_filtered:
            if number <= self.report.last:
                return f"entry {number} stands after entry {self.report.last}"
            return _find_change(entry)
        if number != self._require_head()["first"]:
            return f"entry {self._require_head()['first']} is missing"
        if number == 1 and entry["previous_hash"] != GENESIS_HASH:
            return "entry 1 does not begin the log"
        return ""

    def _pass(self, number: int, value: str) -> None:
        """The log had this hash after this entry, says the file."""
        if value == self._expected:
            self._is_expected_seen = True
        signed = self._waiting.pop(number, None)
        if signed is None:
            return
        if signed != value:
            raise ProofError(f"entry {number} is not the one of the signed checkpoint: the log was written anew")
        self.report.checkpoints += 1
        self.report.proven_until = number

    def _take_end(self, end: Mapping[str, Any]) -> None:
        self._is_over = True
        if end["entries"] != self.report.entries:
            raise ProofError(f"{end['entries']} entries were exported, {self.report.entries} are here")

    def finish(self) -> None:
        """After the last record: nothing may be missing at the end."""
        report, head = self.report, self._require_head()
        later = max(self._waiting, default=0)
        reaches_end = head["last"] == head["number"]
        if not report.is_filtered and later > report.last and reaches_end:
            raise ProofError(f"a signed checkpoint proves {later} entries, and the file ends at {report.last}")
        if not self._is_over:
            raise ProofError(f"the file was cut off after entry {report.last}")
        if not report.is_filtered and report.entries and report.last != head["last"]:
            raise ProofError(f"entries up to {head['last']} were exported, and the file ends at {report.last}")
        if not report.is_filtered and reaches_end and report.entries and report.head_hash != head["hash"]:
            raise ProofError(f"the log's end is not entry {report.last} as it is here")
        if not self._is_expected_seen:
            raise ProofError("the expected head is the hash of no entry here: the log was cut off or written anew")

    def _require_head(self) -> Mapping[str, Any]:
        if self._head is None:
            raise ProofError("this is no export of the audit log")
        return self._head
