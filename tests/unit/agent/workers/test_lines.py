"""Bytes to lines: nothing lost, nothing invented, nothing endless."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from agent.workers.lines import MAX_LINE_BYTES, LineCutter, RateLimit, encode_record
from shared.protocol.grant import LogMark, LogRecord


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_cutter_fed_in_any_pieces_finds_the_same_lines(pieces: list[bytes]) -> None:
    whole = b"".join(pieces)
    cutter = LineCutter()

    lines = [line for piece in pieces for line in cutter.feed(piece)]
    lines += cutter.flush()

    expected = whole.split(b"\n")
    expected = expected[:-1] if not expected[-1] else expected
    assert [text for text, _, _ in lines] == [part.removesuffix(b"\r").decode("utf-8", "replace") for part in expected]
    assert sum(size for _, _, size in lines) == len(whole)


def test_cutter_when_a_line_has_no_end_holds_only_its_beginning() -> None:
    cutter = LineCutter()
    for _ in range(100):
        assert list(cutter.feed(b"x" * MAX_LINE_BYTES)) == []

    ((text, is_cut, size),) = cutter.feed(b"\n")

    assert (len(text), is_cut, size) == (MAX_LINE_BYTES, True, 100 * MAX_LINE_BYTES + 1)


@given(st.binary(max_size=200).filter(lambda raw: b"\n" not in raw))
def test_record_of_any_bytes_is_one_line_of_valid_json(raw: bytes) -> None:
    ((text, _, _),) = LineCutter().feed(raw + b"\n")

    encoded = encode_record(LogRecord(cursor="1:2", line=text))

    assert encoded.count(b"\n") == 1
    assert json.loads(encoded)["line"] == text


def test_rate_limit_when_lines_come_too_fast_counts_what_it_leaves_out_once() -> None:
    now = [0.0]
    limit = RateLimit(lambda: now[0], rate_bytes=100, burst_bytes=250)

    passed = [limit.admits(100) for _ in range(5)]
    mark = limit.take_mark("1:500")
    now[0] = 1.0

    assert passed == [True, True, False, False, False]
    assert mark == LogRecord(cursor="1:500", mark=LogMark.LOST, lost=3)
    assert limit.take_mark("1:500") is None
    assert limit.admits(100)
