"""The wire does not change under our feet: bytes of the first release still mean the same."""

from __future__ import annotations

import typing

import pytest

from shared.protocol import frames, local
from shared.protocol.envelope import JOB_TYPE, verify_envelope
from shared.protocol.job import decode_job
from shared.specs.manifest import decode_manifest
from tests.unit.shared.golden_frames import ENVELOPE, EXAMPLES, FOLDER, JOB, KEY, MANIFEST, encode_example

MAP_16 = 0xDE
FIXMAP = 0x80
FIXMAP_MAX = 15


def golden(name: str) -> bytes:
    return bytes.fromhex((FOLDER / f"{name}.hex").read_text())


def decode(name: str, raw: bytes) -> object:
    example = type(EXAMPLES[name])
    if name.startswith("local_"):
        body = raw[local.LENGTH_BYTES :]
        assert local.decode_length(raw[: local.LENGTH_BYTES]) == len(body)
        is_request = example in typing.get_args(local.ToExecutor)
        return local.decode_to_executor(body) if is_request else local.decode_from_executor(body)
    is_for_agent = example in typing.get_args(frames.ToAgent)
    return frames.decode_to_agent(raw) if is_for_agent else frames.decode_to_controller(raw)


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_bytes_when_decoded_give_the_example(name: str) -> None:
    assert decode(name, golden(name)) == EXAMPLES[name]


@pytest.mark.parametrize("name", EXAMPLES)
def test_golden_bytes_when_encoded_again_are_the_same(name: str) -> None:
    assert normalise_head(name, encode_example(name)) == normalise_head(name, golden(name))


def normalise_head(name: str, raw: bytes) -> bytes:
    """The same frame with the short form of its outermost map's length.

    msgspec writes the long form (map 16) once a Struct has more than 15 fields, however many of them it leaves out. All
    readers take both. Source: the MessagePack specification, "map format family".
    """
    if name.startswith("local_") or raw[0] != MAP_16:
        return raw
    count = int.from_bytes(raw[1:3], "big")
    return raw if count > FIXMAP_MAX else bytes([FIXMAP | count]) + raw[3:]


def test_golden_job_when_replayed_verifies_and_opens() -> None:
    offer = frames.decode_to_agent(golden("job"))
    assert isinstance(offer, frames.OfferJob)

    payload, _ = verify_envelope(offer.envelope, payload_type=JOB_TYPE, keys={"k1": KEY.public_key()})

    assert offer.envelope == ENVELOPE
    assert decode_job(payload) == JOB
    assert decode_manifest(decode_job(payload).args) == MANIFEST


def test_golden_folder_when_a_frame_is_added_has_its_example() -> None:
    unions = (frames.ToAgent, frames.ToController, local.ToExecutor, local.FromExecutor)
    wanted = {frame for union in unions for frame in typing.get_args(union)}

    assert wanted - {type(example) for example in EXAMPLES.values()} == set()
