"""Every frame survives its own codec, and nothing else does damage."""

from __future__ import annotations

import typing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import ProtocolError
from shared.protocol import frames, local
from shared.protocol.envelope import Envelope
from shared.protocol.job import JobResult
from tests.unit.shared.strategies import envelopes

DECODERS = (
    (frames.ToAgent, frames.encode_frame, frames.decode_to_agent),
    (frames.ToController, frames.encode_frame, frames.decode_to_controller),
    (local.ToExecutor, lambda frame: local.encode_local(frame)[local.LENGTH_BYTES :], local.decode_to_executor),
    (local.FromExecutor, lambda frame: local.encode_local(frame)[local.LENGTH_BYTES :], local.decode_from_executor),
)
CASES = [
    pytest.param(frame, encode, decode, id=f"{frame.__module__.rsplit('.', 1)[-1]}.{frame.__name__}")
    for union, encode, decode in DECODERS
    for frame in typing.get_args(union)
]
finite = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(Envelope, envelopes)
st.register_type_strategy(float, finite)
json_values = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=20)


def frame_strategy(frame: type) -> st.SearchStrategy[typing.Any]:
    hints = typing.get_type_hints(frame, include_extras=True)
    fields = {field.name: hints[field.name] for field in msgspec.structs.fields(frame)}
    return st.builds(frame, **{name: field_strategy(kind) for name, kind in fields.items()})


def field_strategy(kind: typing.Any) -> st.SearchStrategy[typing.Any]:
    origin = typing.get_origin(kind)
    if origin is typing.Annotated:
        return bounded_strategy(*typing.get_args(kind))
    if kind is int:
        return st.integers(-(2**62), 2**62)
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind is not Envelope:
        return frame_strategy(kind)
    if origin is tuple:
        return st.lists(field_strategy(typing.get_args(kind)[0]), max_size=2).map(tuple)
    if origin is dict and typing.get_args(kind)[1] is typing.Any:
        return st.dictionaries(st.text(max_size=5), json_values, max_size=2)
    if origin in (typing.Union, getattr(__import__("types"), "UnionType", None)):
        return st.one_of(*(field_strategy(part) for part in typing.get_args(kind)))
    return st.from_type(kind)


def bounded_strategy(kind: typing.Any, meta: msgspec.Meta) -> st.SearchStrategy[typing.Any]:
    """Numbers keep their bounds; what else has a length is drawn shorter than any bound."""
    if kind is int and isinstance(meta, msgspec.Meta):
        low = meta.ge if meta.ge is not None else -(2**62)
        return st.integers(low, meta.lt - 1 if meta.lt is not None else 2**62)
    return field_strategy(kind)


@pytest.mark.parametrize(("frame", "encode", "decode"), CASES)
@given(data=st.data())
def test_frame_when_encoded_decodes_to_itself(frame, encode, decode, data) -> None:
    value = data.draw(frame_strategy(frame))

    assert decode(encode(value)) == value


@given(st.binary(max_size=300))
def test_decoders_when_fed_garbage_raise_protocol_error_only(raw: bytes) -> None:
    for _, _, decode in DECODERS:
        try:
            decode(raw)
        except ProtocolError:
            continue


def test_decode_when_type_unknown_skips_it() -> None:
    raw = msgspec.msgpack.encode({"t": "of_a_later_release", "x": 1})

    assert frames.decode_to_agent(raw) is None
    assert frames.decode_to_controller(raw) is None


def test_decode_when_unknown_type_is_critical_refuses() -> None:
    raw = msgspec.msgpack.encode({"t": "of_a_later_release", "crit": True})

    with pytest.raises(ProtocolError) as caught:
        frames.decode_to_agent(raw)

    assert caught.value.code == "unknown_frame"


def test_decode_when_field_unknown_ignores_it() -> None:
    raw = msgspec.msgpack.encode({"t": "drain", "window_seconds": 3.0, "new_field": [1, 2]})

    assert frames.decode_to_agent(raw) == frames.Drain(window_seconds=3.0)


def test_decode_when_frame_too_large_refuses_before_decoding() -> None:
    with pytest.raises(ProtocolError) as caught:
        frames.decode_to_agent(b"\x00" * (frames.MAX_FRAME_BYTES + 1))

    assert caught.value.code == "frame_too_large"


def test_decode_length_when_too_large_refuses() -> None:
    with pytest.raises(ProtocolError):
        local.decode_length((local.MAX_FRAME_BYTES + 1).to_bytes(4, "big"))


def test_encode_local_when_result_too_large_refuses() -> None:
    result = JobResult(job_id="x", state=frames.JobState.SUCCEEDED, risks=("r" * (local.MAX_FRAME_BYTES + 1),))

    with pytest.raises(ProtocolError):
        local.encode_local(local.JobFinished(result=result))
