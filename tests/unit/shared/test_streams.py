"""What comes over a stream's wire is either a frame within its bounds or a clear error, whatever the bytes are."""

from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError, ProtocolError
from shared.protocol.frames import decode_to_agent, decode_to_controller, encode_frame
from shared.protocol.grant import GRANT_SECONDS, StreamGrant, decode_grant, encode_grant
from shared.protocol.streams import MAX_CHUNK_BYTES, CloseStream, ListStreams, StreamData
from shared.protocol.worker import MAX_WORKER_FRAME_BYTES, decode_worker, decode_worker_length

GRANT = StreamGrant(
    cluster_id="c", node_id="n", node_gen=1, kind="log.tail", account="alice", uid=20_001, path="example.com.access.log",
    max_bytes=1, nonce=b"0123456789abcdef", issued_at=1.0, expires_at=1.0 + GRANT_SECONDS, actor="user/u", request_id="r",
)  # fmt: skip

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=20) | st.binary(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=6), inner, max_size=5),
    max_leaves=20,
)
tags = st.sampled_from(["sd", "stream_open", "stream_opened", "stream_credit", "stream_close", "stream_list"])
maps = st.builds(
    lambda tag, fields: {"t": tag, **fields},
    tags,
    st.dictionaries(
        st.sampled_from(["sid", "offset", "data", "upto", "sids", "newest", "code", "total", "grant", "credit"]), values
    ),
)


@given(maps)
def test_stream_frames_of_any_content_are_taken_or_refused(fields: dict[str, object]) -> None:
    raw = msgspec.msgpack.encode(fields)
    for decode in (decode_to_agent, decode_to_controller):
        try:
            frame = decode(raw)
        except ProtocolError:
            continue
        if isinstance(frame, StreamData):
            assert len(frame.data) <= MAX_CHUNK_BYTES


@given(st.binary(max_size=300))
def test_any_bytes_when_decoded_are_a_frame_or_a_protocol_error(raw: bytes) -> None:
    for decode in (decode_to_agent, decode_to_controller, decode_worker):
        with contextlib.suppress(ProtocolError):
            decode(raw)


@pytest.mark.parametrize(
    "frame",
    [
        StreamData(sid=1, offset=0, data=b"x" * (MAX_CHUNK_BYTES + 1)),
        StreamData(sid=0, offset=0, data=b"x"),
        StreamData(sid=1, offset=-1, data=b"x"),
        ListStreams(sids=tuple(range(1000)), newest=1000),
    ],
)
def test_stream_frames_outside_their_bounds_are_refused(frame: StreamData) -> None:
    with pytest.raises(ProtocolError):
        decode_to_controller(encode_frame(frame))


def test_nested_msgpack_bomb_is_refused_without_a_crash() -> None:
    bomb = b"\x82\xa1t\xacstream_close\xa1x" + b"\x91" * 200_000 + b"\x00"

    with pytest.raises(ProtocolError):
        decode_to_controller(bomb)


def test_announced_sizes_are_not_believed() -> None:
    with pytest.raises(ProtocolError):
        decode_worker_length((MAX_WORKER_FRAME_BYTES + 1).to_bytes(4, "big"))
    with pytest.raises(ProtocolError):
        decode_to_controller(b"\x82\xa1t\xa2sd\xa4data\xc6\xff\xff\xff\xff")


@given(st.binary(max_size=400))
def test_grants_of_any_bytes_are_refused_clearly(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_grant(raw)


def test_grant_when_a_field_is_added_is_refused() -> None:
    fields = msgspec.msgpack.decode(encode_grant(GRANT))

    assert decode_grant(encode_grant(GRANT)) == GRANT
    with pytest.raises(InvalidInputError):
        decode_grant(msgspec.msgpack.encode({**fields, "root": "/etc"}))


@pytest.mark.parametrize(
    "changes", [{"nonce": b"short"}, {"max_bytes": 0}, {"expires_at": 1e6}, {"expires_at": 0.5}, {"v": 2}]
)
def test_grant_outside_its_rules_is_refused(changes: dict[str, object]) -> None:
    fields = msgspec.msgpack.decode(encode_grant(GRANT))

    with pytest.raises(InvalidInputError):
        decode_grant(msgspec.msgpack.encode({**fields, **changes}))


def test_close_without_a_code_is_small_on_the_wire() -> None:
    assert len(encode_frame(CloseStream(sid=1))) < 32
