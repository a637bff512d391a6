"""The walk along an export of the audit log: every entry, every checkpoint, and what nodes said of them.

Pure, and of the standard library alone: it runs on a machine that has no controller.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from shared.audit_proof import (
    FORMAT,
    GENESIS_HASH,
    ProofError,
    find_change,
    find_fault,
    is_checkpoint_signed,
    parse_checkpoint,
)
from shared.audit_witness import Witnesses


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
    nodes: int = 0
    """How many of them signed ends of the log that are in the file."""
    witnessed_until: int = 0
    """Up to this entry a node's signature, or its own record, says the same as the file; 0: none does."""
    is_filtered: bool = False
    """It holds a selection: each entry is proven by itself, and nothing says that none is missing."""
    first_bad_number: int | None = None
    reason: str = ""
    """Empty: intact."""
    notes: list[str] = field(default_factory=list)


def verify_export(
    records: Iterable[Mapping[str, Any]],
    *,
    public_key: bytes | None = None,
    expected_head: str | None = None,
    authorities: str | None = None,
    node_record: Mapping[int, str] | None = None,
) -> ProofReport:
    """Walk along an export and stop at the first thing that does not fit.

    Args:
        records: As `parse_lines` or the reader of CSV gives them.
        public_key: The controller's root key, known from elsewhere; None: the one that the file names is believed.
        expected_head: Hash of an entry that was noted earlier and must be in it.
        authorities: Who issues the nodes' certificates, PEM, known from elsewhere; None: those that the file names.
        node_record: What a node kept of the ends it was shown (`audit_witness.read_record`).
    """
    walk = _Walk(public_key, expected_head, authorities, node_record or {})
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

    def __init__(
        self,
        public_key: bytes | None,
        expected_head: str | None,
        authorities: str | None,
        node_record: Mapping[int, str],
    ) -> None:
        self.report = ProofReport()
        self._key = public_key
        self._expected = expected_head
        self._is_expected_seen = expected_head in (None, GENESIS_HASH)
        self._head: Mapping[str, Any] | None = None
        self._waiting: dict[int, str] = {}
        """Checkpoints whose entry has not come yet: number to hash."""
        self._authorities = authorities
        self._witnesses: Witnesses | None = None
        self._seen: dict[int, dict[str, str]] = {}
        """What nodes saw: number to hash to a node that saw it."""
        for number, value in node_record.items():
            self._seen.setdefault(number, {})[value] = "record"
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
        elif kind == "certificate":
            self._require_witnesses().take_certificate(record["pem"])
        elif kind == "witness":
            self._take_witness(record)
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

    def _require_witnesses(self) -> Witnesses:
        head = self._require_head()
        if self._witnesses is None:
            if self._authorities is None:
                self.report.notes.append("the nodes' certificates were checked with the authority that the file names")
            self._witnesses = Witnesses(head["cluster_id"], self._authorities or head["authorities"])
        return self._witnesses

    def _take_witness(self, record: Mapping[str, Any]) -> None:
        witnesses = self._require_witnesses()
        said = witnesses.take(record)
        self._seen.setdefault(said.number, {})[said.hash] = said.node_id
        self.report.nodes = len(witnesses.nodes)

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
            return find_change(entry)
        if number != self._require_head()["first"]:
            return f"entry {self._require_head()['first']} is missing"
        if number == 1 and entry["previous_hash"] != GENESIS_HASH:
            return "entry 1 does not begin the log"
        return ""

    def _pass(self, number: int, value: str) -> None:
        """The log had this hash after this entry, says the file."""
        if value == self._expected:
            self._is_expected_seen = True
        seen = self._seen.pop(number, {})
        for other in seen.keys() - {value}:
            raise ProofError(f"entry {number} is not the one that a node was shown ({seen[other]}): another log")
        if seen:
            self.report.witnessed_until = number
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
        seen = max(self._seen, default=0)
        if not report.is_filtered and seen > report.last and reaches_end:
            raise ProofError(f"a node was shown {seen} entries, and the file ends at {report.last}")
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
