"""The proof of the audit log without any controller: everything that somebody could do to an export is found."""

from __future__ import annotations

import base64
import copy
import io
import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.audit_csv import parse_rows, render_header, render_rows
from shared.audit_proof import (
    CHECKPOINT_TYPE,
    FORMAT,
    GENESIS_HASH,
    Checkpoint,
    hash_entry,
    parse_lines,
    render_checkpoint,
    render_line,
)
from shared.audit_walk import verify_export
from shared.ed25519 import is_signed_by
from shared.protocol.envelope import sign_envelope

Record = dict[str, Any]
KEY = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
PUBLIC = KEY.public_key().public_bytes_raw()
FORMULA = '=HYPERLINK("http://evil.example")'


def make_entries(count: int, first: int = 1, previous: str = GENESIS_HASH) -> list[Record]:
    """A good chain."""
    entries = []
    for number in range(first, first + count):
        entry: Record = {
            "kind": "entry", "number": number, "at": f"2026-01-01T00:00:{number:02}.000000+00:00", "actor": "user/1",
            "actor_name": "ada" if number % 2 else FORMULA, "address": "192.0.2.1" if number % 3 else None,
            "account_id": None, "client_id": "c1", "reseller_id": None, "request_id": f"r{number}", "action": "site.create",
            "target": "site/1", "target_name": "a.example\u2028ü", "before": None,
            "after": {"name": "'x", "size": 1.5, "list": [1, None, "ä\n"]}, "previous_hash": previous,
        }  # fmt: skip
        entry["hash"] = previous = hash_entry(entry)
        entries.append(entry)
    return entries


def make_checkpoint(entry: Record, *, key: Ed25519PrivateKey = KEY, cluster: str = "c") -> Record:
    """Signed as the controller signs."""
    payload = render_checkpoint(Checkpoint(cluster_id=cluster, number=entry["number"], hash=entry["hash"], at="t"))
    envelope = sign_envelope(CHECKPOINT_TYPE, payload.encode(), {"root-1": key})
    signature = base64.b64encode(envelope.signatures[0].sig).decode()
    return {"kind": "checkpoint", "payload": payload, "kid": "root-1", "signature": signature}


def make_export(entries: list[Record], *signed: int, **head: Any) -> list[Record]:
    """An export of the whole log, with checkpoints at these entries."""
    last = entries[-1]
    start: Record = {
        "kind": "head", "format": FORMAT, "cluster_id": "c", "number": last["number"], "hash": last["hash"],
        "first": entries[0]["number"], "last": last["number"], "is_filtered": False,
        "public_key": base64.b64encode(PUBLIC).decode(),
    } | head  # fmt: skip
    by_number = {entry["number"]: entry for entry in entries}
    checkpoints = [make_checkpoint(by_number[number]) for number in signed]
    return [start, *checkpoints, *copy.deepcopy(entries), {"kind": "end", "entries": len(entries)}]


def entry_of(records: list[Record], number: int) -> Record:
    return next(record for record in records if record["kind"] == "entry" and record["number"] == number)


def lines_of(text: str) -> Iterator[str]:
    """As a file gives them that is opened without translating the ends of lines."""
    return io.StringIO(text, newline="")


def seal_again(records: list[Record]) -> None:
    """What a forger does: hashes that fit again, and a head and an end that agree."""
    previous = GENESIS_HASH
    entries = [record for record in records if record["kind"] == "entry"]
    for entry in entries:
        entry["previous_hash"] = previous
        entry["hash"] = previous = hash_entry(entry)
    records[0]["hash"], records[0]["number"], records[0]["last"] = previous, len(entries), len(entries)
    records[-1]["entries"] = len(entries)


def test_verify_export_when_nobody_touched_it_is_intact() -> None:
    report = verify_export(make_export(make_entries(5), 2, 4), public_key=PUBLIC)

    assert (report.reason, report.entries, report.first, report.last) == ("", 5, 1, 5)
    assert (report.checkpoints, report.proven_until) == (2, 4)


def edit(records: list[Record]) -> None:
    entry_of(records, 3)["target_name"] = "other"


def edit_state(records: list[Record]) -> None:
    entry_of(records, 3)["after"]["size"] = 2


def edit_tenant(records: list[Record]) -> None:
    entry_of(records, 3)["client_id"] = "c2"


def edit_and_hash(records: list[Record]) -> None:
    entry = entry_of(records, 3)
    entry["target_name"] = "other"
    entry["hash"] = hash_entry(entry)


def delete(records: list[Record]) -> None:
    records.remove(entry_of(records, 3))


def delete_first(records: list[Record]) -> None:
    records.remove(entry_of(records, 1))


def swap(records: list[Record]) -> None:
    one, other = records.index(entry_of(records, 2)), records.index(entry_of(records, 3))
    records[one], records[other] = records[other], records[one]


def swap_and_number(records: list[Record]) -> None:
    swap(records)
    one, other = entry_of(records, 2), entry_of(records, 3)
    one["number"], other["number"] = 3, 2


def cut_off(records: list[Record]) -> None:
    del records[-2:]


def cut_off_with_an_end(records: list[Record]) -> None:
    records.remove(entry_of(records, 5))
    records[-1]["entries"] = 4


def insert(records: list[Record]) -> None:
    records.insert(-1, entry_of(records, 5))


def foreign(records: list[Record]) -> None:
    records[1] = make_checkpoint(entry_of(records, 4), cluster="another")


def forged_checkpoint(records: list[Record]) -> None:
    records[1] = make_checkpoint(entry_of(records, 4), key=Ed25519PrivateKey.generate())


def no_head(records: list[Record]) -> None:
    del records[0]


@pytest.mark.parametrize(
    ("tamper", "words"),
    [
        (edit, "entry 3 was changed"),
        (edit_state, "entry 3 was changed"),
        (edit_tenant, "entry 3 was changed"),
        (edit_and_hash, "entry 4 does not continue entry 3"),
        (delete, "entry 3 is missing"),
        (delete_first, "entry 1 is missing"),
        (swap, "entry 2 is missing"),
        (swap_and_number, "entry 2 does not continue entry 1"),
        (cut_off, "proves 5 entries, and the file ends at 4"),
        (cut_off_with_an_end, "proves 5 entries, and the file ends at 4"),
        (insert, "entry 6 is missing"),
        (foreign, "of another controller"),
        (forged_checkpoint, "is not signed by the controller's key"),
        (no_head, "begins with its head"),
    ],
)
def test_verify_export_when_somebody_touched_it_says_where(tamper: Callable[[list[Record]], None], words: str) -> None:
    records = make_export(make_entries(5), 5)
    tamper(records)

    report = verify_export(records, public_key=PUBLIC)

    assert words in report.reason
    assert report.first_bad_number == report.last + 1


def test_verify_export_when_it_was_cut_off_and_has_no_checkpoint_is_found_by_its_end() -> None:
    records = make_export(make_entries(5))
    cut_off(records)

    assert verify_export(records, public_key=PUBLIC).reason == "the file was cut off after entry 4"


@pytest.mark.parametrize("tamper", [edit, delete, cut_off_with_an_end])
def test_verify_export_when_all_hashes_were_made_anew_is_found_by_the_checkpoint(
    tamper: Callable[[list[Record]], None],
) -> None:
    records = make_export(make_entries(5), 5)
    tamper(records)
    for number, entry in enumerate((record for record in records if record["kind"] == "entry"), 1):
        entry["number"] = number
    seal_again(records)

    assert verify_export(records, public_key=PUBLIC).reason


@pytest.mark.parametrize("tamper", [edit, delete, cut_off_with_an_end])
def test_verify_export_when_checkpoints_were_removed_too_is_found_by_the_expected_head(
    tamper: Callable[[list[Record]], None],
) -> None:
    entries = make_entries(5)
    records = make_export(entries)
    tamper(records)
    for number, entry in enumerate((record for record in records if record["kind"] == "entry"), 1):
        entry["number"] = number
    seal_again(records)

    assert verify_export(records, public_key=PUBLIC).reason == ""
    assert "expected head" in verify_export(records, public_key=PUBLIC, expected_head=entries[-1]["hash"]).reason


def test_verify_export_when_the_forger_signed_with_his_own_key_is_found_by_the_key_known_from_elsewhere() -> None:
    records = make_export(make_entries(5))
    edit(records)
    seal_again(records)
    forger = Ed25519PrivateKey.generate()
    records[0]["public_key"] = base64.b64encode(forger.public_key().public_bytes_raw()).decode()
    records.insert(1, make_checkpoint(entry_of(records, 5), key=forger))

    believed = verify_export(records)

    assert (believed.reason, believed.notes != []) == ("", True)
    assert "is not signed" in verify_export(records, public_key=PUBLIC).reason


def test_verify_export_of_a_range_begins_where_it_says_and_is_anchored_by_a_checkpoint() -> None:
    entries = make_entries(6)
    part = make_export(entries[2:4], number=6, hash=entries[5]["hash"])
    part.insert(1, make_checkpoint(entries[1]))

    report = verify_export(part, public_key=PUBLIC)

    assert (report.reason, report.first, report.last, report.checkpoints) == ("", 3, 4, 1)


def test_verify_export_of_a_selection_proves_each_entry_by_itself() -> None:
    entries = make_entries(6)
    chosen = make_export([entries[1], entries[4]], is_filtered=True, first=1)

    report = verify_export(chosen, public_key=PUBLIC)
    chosen[2]["target_name"] = "other"

    assert (report.reason, report.entries, report.is_filtered) == ("", 2, True)
    assert verify_export(chosen, public_key=PUBLIC).reason == "entry 5 was changed after it was written"


@pytest.mark.parametrize("head", [{"format": "x"}, {"first": None}, {"public_key": "!"}, {"cluster_id": 5}])
def test_verify_export_when_its_head_is_nonsense_says_so_and_does_not_fail(head: Record) -> None:
    assert verify_export(make_export(make_entries(2), 1, **head)).reason


@pytest.mark.parametrize("tamper", [None, edit, edit_state, edit_and_hash, delete, swap, cut_off_with_an_end])
def test_parse_lines_when_written_as_the_controller_does_proves_the_same(
    tamper: Callable[[list[Record]], None] | None,
) -> None:
    records = make_export(make_entries(5), 5)
    if tamper is not None:
        tamper(records)
    text = b"".join(map(render_line, records)).decode()

    report = verify_export(parse_lines(io.StringIO(text, newline="")), public_key=PUBLIC)

    assert report == verify_export(records, public_key=PUBLIC)
    assert (report.reason == "") == (tamper is None)


def test_parse_lines_when_written_as_the_controller_does_needs_no_second_writing() -> None:
    (entry,) = parse_lines([render_line(make_entries(1)[0]).decode()])

    assert [value for key, value in entry.items() if not isinstance(key, str)] == [entry["hash"]]


def test_parse_lines_when_a_line_says_that_it_is_proven_is_not_believed() -> None:
    records = make_export(make_entries(2))
    edited = render_line(records[1]).decode().replace("site.create", "site.delete")

    assert "was changed" in verify_export(parse_lines([render_line(records[0]).decode(), edited])).reason


def test_parse_lines_when_the_file_ends_in_half_a_line_is_found() -> None:
    text = "\n".join(json.dumps(record) for record in make_export(make_entries(3)))

    report = verify_export(parse_lines(text[: len(text) // 2].splitlines()))

    assert "cut off" in report.reason


def test_csv_when_read_back_is_the_same_proof_and_holds_no_formula() -> None:
    records = make_export(make_entries(6), 3, 6)
    text = render_header() + render_rows(records)

    report = verify_export(parse_rows(lines_of(text)), public_key=PUBLIC)

    assert (report.reason, report.entries, report.proven_until) == ("", 6, 6)
    assert f"'{FORMULA[:10]}" in text
    assert f",{FORMULA[:10]}" not in text.replace('"', "")


def test_csv_when_it_was_edited_or_cut_off_is_found() -> None:
    text = render_header() + render_rows(make_export(make_entries(6), 6))

    edited = verify_export(parse_rows(lines_of(text.replace("site.create", "site.delete", 1))))
    cut = verify_export(parse_rows(lines_of(text[: len(text) - 40])))

    assert edited.reason == "entry 1 was changed after it was written"
    assert cut.reason


@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1))
def test_csv_when_a_cell_holds_anything_reads_it_back_and_begins_no_formula(text: str) -> None:
    entry = make_entries(1)[0] | {"target_name": text, "actor_name": text}

    rendered = render_header() + render_rows([entry])
    (back,) = parse_rows(lines_of(rendered))

    assert back == entry


@pytest.mark.parametrize("length", [0, 1, 2, 3, 100])
def test_is_signed_by_when_compared_with_the_library_agrees(length: int) -> None:
    message = bytes(range(256))[:length]
    signature = KEY.sign(message)

    assert is_signed_by(PUBLIC, message, signature)
    assert not is_signed_by(PUBLIC, message + b"x", signature)
    assert not is_signed_by(PUBLIC, message, bytes([signature[0] ^ 1]) + signature[1:])
    assert not is_signed_by(PUBLIC, message, signature[:-1] + bytes([signature[-1] ^ 0x80]))
    assert not is_signed_by(PUBLIC, message, signature[:-1])
    assert not is_signed_by(bytes(32), message, signature)


def test_is_signed_by_knows_the_vector_of_the_standard() -> None:
    """RFC 8032 section 7.1, TEST 2."""
    key = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
    signature = bytes.fromhex(
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )

    assert is_signed_by(key, b"\x72", signature)
