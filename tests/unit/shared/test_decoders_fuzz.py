"""Decoders take any bytes: the answer is a value or the documented error, never anything else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import InvalidInputError, ProtocolError, RefusedError
from shared.protocol import frames, local
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, Signature, sign_envelope, verify_envelope
from shared.protocol.job import decode_job, encode_job
from shared.protocol.trust import open_trust_bundle
from shared.specs.manifest import decode_manifest, encode_manifest
from tests.unit.shared.golden_frames import EXAMPLES, JOB, MANIFEST, encode_example

ROUNDS = 400
ROOT = Ed25519PrivateKey.from_private_bytes(b"\x05" * 32)
Decoder = Callable[[bytes], object]

DECODERS: dict[str, tuple[Decoder, tuple[type[Exception], ...]]] = {
    "to agent": (frames.decode_to_agent, (ProtocolError,)),
    "to controller": (frames.decode_to_controller, (ProtocolError,)),
    "to executor": (local.decode_to_executor, (ProtocolError,)),
    "from executor": (local.decode_from_executor, (ProtocolError,)),
    "job": (decode_job, (InvalidInputError,)),
    "manifest": (decode_manifest, (InvalidInputError,)),
    "trust": (
        lambda raw: open_trust_bundle(
            sign_envelope(TRUST_TYPE, raw, {"root": ROOT}), root_keys={"root": ROOT.public_key()}
        ),
        (InvalidInputError,),
    ),
}


def good_bytes(name: str) -> list[bytes]:
    """What each decoder takes, to be spoiled."""
    if name == "job":
        return [encode_job(JOB)]
    if name in ("manifest", "trust"):
        return [encode_manifest(MANIFEST)]
    is_local = "executor" in name
    examples = [example for example in EXAMPLES if example.startswith("local_") == is_local]
    return [encode_example(example)[local.LENGTH_BYTES if is_local else 0 :] for example in examples]


def spoil(raw: bytes, chance: random.Random) -> bytes:
    """A few bytes flipped, cut, doubled or replaced."""
    data = bytearray(raw)
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        match chance.randrange(4):
            case 0 if at < len(data):
                data[at] ^= 1 << chance.randrange(8)
            case 1:
                del data[at : at + chance.randint(1, 8)]
            case 2:
                data[at:at] = data[at : at + 16]
            case _:
                data[at:at] = chance.choice(
                    [b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\xc6\xff\xff\xff\xff", b"\x91" * 40]
                )
    return bytes(data)


@pytest.mark.parametrize("name", DECODERS)
@given(raw=st.binary(max_size=300))
@settings(max_examples=150, deadline=None)
def test_decoder_when_given_any_bytes_answers_or_refuses(name: str, raw: bytes) -> None:
    decode, documented = DECODERS[name]
    with contextlib.suppress(documented):
        decode(raw)


@pytest.mark.parametrize("name", DECODERS)
def test_decoder_when_good_bytes_are_spoiled_answers_or_refuses(name: str) -> None:
    decode, documented = DECODERS[name]
    chance = random.Random(name)
    for raw in good_bytes(name):
        for _ in range(ROUNDS // max(1, len(good_bytes(name)) // 4)):
            spoilt = spoil(raw, chance)
            try:
                decode(spoilt)
            except documented:
                continue


@given(
    payload=st.binary(max_size=100),
    kid=st.text(max_size=20),
    signature=st.binary(max_size=80),
    payload_type=st.sampled_from([JOB_TYPE, TRUST_TYPE, "", "application/vnd.wcp360.job.v2+msgpack"]),
)
@settings(max_examples=200, deadline=None)
def test_envelope_when_made_up_is_never_verified(payload: bytes, kid: str, signature: bytes, payload_type: str) -> None:
    envelope = Envelope(payload_type=payload_type, payload=payload, signatures=(Signature(kid=kid, sig=signature),))

    with pytest.raises(RefusedError):
        verify_envelope(envelope, payload_type=JOB_TYPE, keys={kid: ROOT.public_key()})


@pytest.mark.parametrize("position", range(0, 64, 7))
def test_envelope_when_one_bit_of_payload_or_signature_differs_is_refused(position: int) -> None:
    good = sign_envelope(JOB_TYPE, encode_job(JOB), {"k": ROOT})
    (signature,) = good.signatures
    spoilt = bytearray(signature.sig)
    spoilt[position] ^= 1
    payload = bytearray(good.payload)
    payload[position] ^= 1
    keys = {"k": ROOT.public_key()}

    for envelope in (
        Envelope(payload_type=JOB_TYPE, payload=good.payload, signatures=(Signature(kid="k", sig=bytes(spoilt)),)),
        Envelope(payload_type=JOB_TYPE, payload=bytes(payload), signatures=good.signatures),
    ):
        with pytest.raises(RefusedError):
            verify_envelope(envelope, payload_type=JOB_TYPE, keys=keys)
