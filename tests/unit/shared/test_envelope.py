"""Signatures: only what was signed, by who may sign, is believed."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import InvalidInputError, RefusedError
from shared.protocol import envelope as dsse
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, Signature, sign_envelope, verify_envelope
from shared.protocol.job import Job, decode_job, encode_job
from shared.protocol.trust import (
    JobKey,
    TrustBundle,
    encode_trust_bundle,
    is_action_allowed,
    open_trust_bundle,
    require_newer,
)

KEY = Ed25519PrivateKey.from_private_bytes(b"\x01" * 32)
OTHER = Ed25519PrivateKey.from_private_bytes(b"\x02" * 32)
KEYS = {"k1": KEY.public_key()}


def a_bundle(**changes: object) -> TrustBundle:
    values: dict = {
        "cluster_id": "c1", "version": 2, "issued_at": 0.0, "expires_at": 100.0, "ca_certificates": (), "job_keys": (),
    }  # fmt: skip
    return TrustBundle(**{**values, **changes})


def test_pae_when_computed_matches_the_specification() -> None:
    # Source: the test vector of the DSSE specification, protocol.md.
    assert dsse.pre_authentication_encoding("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )


@given(st.binary(max_size=500))
def test_verify_when_signed_returns_the_same_bytes(payload: bytes) -> None:
    signed = sign_envelope(JOB_TYPE, payload, {"k1": KEY})

    assert verify_envelope(signed, payload_type=JOB_TYPE, keys=KEYS) == (payload, frozenset({"k1"}))


@given(st.binary(min_size=1, max_size=200), st.data())
def test_verify_when_one_bit_changed_refuses(payload: bytes, data: st.DataObject) -> None:
    signed = sign_envelope(JOB_TYPE, payload, {"k1": KEY})
    position = data.draw(st.integers(0, len(payload) - 1))
    forged = bytes(byte ^ (1 if index == position else 0) for index, byte in enumerate(payload))

    with pytest.raises(RefusedError) as caught:
        verify_envelope(Envelope(JOB_TYPE, forged, signed.signatures), payload_type=JOB_TYPE, keys=KEYS)

    assert caught.value.code == "bad_signature"


def test_verify_when_type_swapped_refuses() -> None:
    signed = sign_envelope(JOB_TYPE, b"x", {"k1": KEY})

    with pytest.raises(RefusedError) as caught:
        verify_envelope(signed, payload_type=TRUST_TYPE, keys=KEYS)
    with pytest.raises(RefusedError) as relabelled:
        verify_envelope(Envelope(TRUST_TYPE, b"x", signed.signatures), payload_type=TRUST_TYPE, keys=KEYS)

    assert (caught.value.code, relabelled.value.code) == ("wrong_type", "bad_signature")


def test_verify_when_key_id_is_a_trusted_one_but_signer_is_not_refuses() -> None:
    forged = sign_envelope(JOB_TYPE, b"x", {"k1": OTHER})

    with pytest.raises(RefusedError):
        verify_envelope(forged, payload_type=JOB_TYPE, keys=KEYS)


def test_verify_when_signature_is_not_64_bytes_refuses() -> None:
    with pytest.raises(RefusedError):
        verify_envelope(Envelope(JOB_TYPE, b"x", (Signature("k1", b"short"),)), payload_type=JOB_TYPE, keys=KEYS)


def test_verify_when_payload_too_large_refuses_before_any_cryptography() -> None:
    huge = Envelope(JOB_TYPE, b"x" * (dsse.MAX_PAYLOAD_BYTES + 1), ())

    with pytest.raises(RefusedError) as caught:
        verify_envelope(huge, payload_type=JOB_TYPE, keys=KEYS)

    assert caught.value.code == "too_large"


@given(st.binary(max_size=300))
def test_decode_job_when_garbage_raises_invalid_input(raw: bytes) -> None:
    with pytest.raises(InvalidInputError):
        decode_job(raw)


def test_job_when_encoded_decodes_to_itself() -> None:
    job = Job(
        cluster_id="c", node_id="n", node_gen=1, job_id="j", nonce=b"n" * 16, seq=1, action="fleet.noop@1", args=b"",
        resource_key="node", actor="user/1", request_id="r", issued_at=1.0, not_before=1.0, expires_at=2.0,
        max_runtime_seconds=60,
    )  # fmt: skip

    assert decode_job(encode_job(job)) == job


def test_trust_bundle_when_signed_by_another_key_refuses() -> None:
    signed = sign_envelope(TRUST_TYPE, encode_trust_bundle(a_bundle()), {"k1": OTHER})

    with pytest.raises(RefusedError):
        open_trust_bundle(signed, root_keys=KEYS)


def test_trust_bundle_when_signed_by_root_opens() -> None:
    signed = sign_envelope(TRUST_TYPE, encode_trust_bundle(a_bundle()), {"k1": KEY})

    assert open_trust_bundle(signed, root_keys=KEYS) == a_bundle()


@pytest.mark.parametrize(
    ("offered", "code"),
    [
        (a_bundle(version=2), "stale_bundle"),
        (a_bundle(version=1), "stale_bundle"),
        (a_bundle(version=3, cluster_id="c2"), "wrong_cluster"),
        (a_bundle(version=3, expires_at=10.0), "expired_bundle"),
    ],
)
def test_trust_bundle_when_not_newer_is_refused(offered: TrustBundle, code: str) -> None:
    with pytest.raises(RefusedError) as caught:
        require_newer(a_bundle(), offered, now=50.0)

    assert caught.value.code == code


def test_active_job_keys_when_revoked_or_out_of_time_leave_them_out() -> None:
    keys = tuple(
        JobKey(kid=kid, public_key=b"", not_before=start, expires_at=end)
        for kid, start, end in (("good", 0, 100), ("old", 0, 10), ("future", 60, 100), ("revoked", 0, 100))
    )
    bundle = a_bundle(job_keys=keys, revoked_kids=("revoked",))

    assert set(bundle.active_job_keys(50.0)) == {"good"}


@pytest.mark.parametrize(
    ("actions", "action", "is_allowed"),
    [
        (("*",), "manifest.converge@1", True),
        (("manifest.*",), "manifest.converge@1", True),
        (("manifest.converge@1",), "manifest.converge@1", True),
        (("manifest.converge@1",), "manifest.converge@2", False),
        (("fleet.*",), "manifest.converge@1", False),
        ((), "manifest.converge@1", False),
    ],
)
def test_action_scope_when_checked_matches_exactly(actions: tuple[str, ...], action: str, is_allowed: bool) -> None:
    key = JobKey(kid="k", public_key=b"", not_before=0, expires_at=1, actions=actions)

    assert is_action_allowed(key, action) is is_allowed
