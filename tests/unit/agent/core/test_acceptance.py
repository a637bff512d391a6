"""Each check of the root side, alone: what passes and what is refused with which code."""

from __future__ import annotations

import msgspec
import pytest

from agent.core import acceptance
from agent.core.records import Applied
from shared.errors import RefusedError
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, Signature, sign_envelope
from shared.protocol.job import ACTION_DRIFT, ACTION_NOOP, JobMode, encode_job
from shared.specs.base import Presence
from shared.specs.manifest import DriftPolicy, manifest_digest
from shared.specs.module import ModuleSpec
from tests.integration.executor import bench

NOW = bench.NOW


def code_of(call) -> str:
    with pytest.raises(RefusedError) as refused:
        call()
    return refused.value.code


def open_with(envelope, *, identity=None, trust=None, now=NOW):
    return acceptance.open_job(envelope, identity=identity or bench.identity(), bundle=trust or bench.bundle(), now=now)


def test_open_job_when_everything_fits_returns_the_job() -> None:
    job = bench.job(bench.manifest())

    assert open_with(bench.signed(job)) == job


def test_open_job_when_not_enrolled_refuses() -> None:
    envelope = bench.signed(bench.job(bench.manifest()))

    assert (
        code_of(lambda: acceptance.open_job(envelope, identity=None, bundle=bench.bundle(), now=NOW)) == "not_enrolled"
    )


def test_open_job_when_no_bundle_refuses() -> None:
    envelope = bench.signed(bench.job(bench.manifest()))

    assert code_of(lambda: acceptance.open_job(envelope, identity=bench.identity(), bundle=None, now=NOW)) == "no_trust"


def test_require_size_when_payload_is_huge_refuses() -> None:
    envelope = Envelope(payload_type=JOB_TYPE, payload=bytes(5 * 1024 * 1024), signatures=())

    assert code_of(lambda: acceptance.require_size(envelope)) == "too_large"


def test_require_size_when_there_are_many_signatures_refuses() -> None:
    envelope = Envelope(payload_type=JOB_TYPE, payload=b"", signatures=(Signature(kid="k", sig=b""),) * 9)

    assert code_of(lambda: acceptance.require_size(envelope)) == "too_large"


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"expires_at": NOW - 1}, "expired_bundle"),
        ({"min_capability": 99}, "outdated_agent"),
        ({"revoked_kids": ("job-1",)}, "revoked_key"),
        ({"job_keys": (bench.job_key(expires_at=NOW - 1),)}, "expired_key"),
        ({"job_keys": (bench.job_key(not_before=NOW + 1),)}, "expired_key"),
        ({"job_keys": (bench.job_key("job-2"),)}, "unknown_key"),
        ({"job_keys": (bench.job_key(key=bench.key_of("other")),)}, "bad_signature"),
        ({"job_keys": (bench.job_key(actions=("fleet.*",)),)}, "out_of_scope"),
    ],
)
def test_open_job_when_the_bundle_does_not_cover_it_refuses(values, code) -> None:
    envelope = bench.signed(bench.job(bench.manifest()))

    assert code_of(lambda: open_with(envelope, trust=bench.bundle(**values))) == code


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"cluster_id": "other"}, "wrong_cluster"),
        ({"node_id": "other"}, "wrong_node"),
        ({"node_gen": 2}, "wrong_node_generation"),
        ({"action": "root.shell@1"}, "unknown_action"),
    ],
)
def test_open_job_when_it_is_not_for_us_refuses(values, code) -> None:
    envelope = bench.signed(bench.job(bench.manifest(), **values))

    assert code_of(lambda: open_with(envelope)) == code


def test_open_job_when_payload_is_tampered_refuses_before_decoding() -> None:
    envelope = bench.signed(bench.job(bench.manifest()))
    tampered = msgspec.structs.replace(envelope, payload=envelope.payload[:-1] + b"\x00")

    assert code_of(lambda: open_with(tampered)) == "bad_signature"


def test_open_job_when_signature_is_of_another_job_refuses() -> None:
    one, other = bench.signed(bench.job(bench.manifest())), bench.signed(bench.job(bench.manifest(2)))
    swapped = msgspec.structs.replace(one, signatures=other.signatures)

    assert code_of(lambda: open_with(swapped)) == "bad_signature"


def test_open_job_when_the_key_id_is_altered_refuses() -> None:
    trust = bench.bundle(job_keys=(bench.job_key(), bench.job_key("job-2", bench.key_of("second"))))
    envelope = bench.signed(bench.job(bench.manifest()))
    altered = msgspec.structs.replace(envelope, signatures=(Signature(kid="job-2", sig=envelope.signatures[0].sig),))

    assert code_of(lambda: open_with(altered, trust=trust)) == "bad_signature"


def test_open_job_when_signed_as_another_type_refuses() -> None:
    payload = encode_job(bench.job(bench.manifest()))
    confused = sign_envelope(TRUST_TYPE, payload, {"job-1": bench.JOB_KEY})

    assert code_of(lambda: open_with(confused)) == "wrong_type"
    relabelled = msgspec.structs.replace(confused, payload_type=JOB_TYPE)
    assert code_of(lambda: open_with(relabelled)) == "bad_signature"


@pytest.mark.parametrize("cut", [0, 1, 40, -1])
def test_open_job_when_signed_bytes_are_no_job_refuses(cut) -> None:
    payload = encode_job(bench.job(bench.manifest()))[:cut]
    envelope = sign_envelope(JOB_TYPE, payload, {"job-1": bench.JOB_KEY})

    assert code_of(lambda: open_with(envelope)) == "malformed"


def test_open_job_when_a_field_is_unknown_refuses() -> None:
    fields = msgspec.msgpack.decode(encode_job(bench.job(bench.manifest())))
    payload = msgspec.msgpack.encode({**fields, "shell": "rm -rf /"})
    envelope = sign_envelope(JOB_TYPE, payload, {"job-1": bench.JOB_KEY})

    assert code_of(lambda: open_with(envelope)) == "malformed"


@pytest.mark.parametrize(
    ("shift", "code"),
    [(-121.0, "clock_skew"), (-119.0, None), (3600.0 + 119.0, None), (3600.0 + 121.0, "expired")],
)
def test_require_time_when_off_by_more_than_the_tolerance_refuses(shift, code) -> None:
    job = bench.job(bench.manifest())

    if code is None:
        acceptance.require_time(job, now=NOW + shift)
    else:
        assert code_of(lambda: acceptance.require_time(job, now=NOW + shift)) == code


def test_effective_now_when_our_clock_was_set_back_is_the_controllers() -> None:
    assert acceptance.effective_now(NOW - 3650 * 86_400, NOW) == NOW


@pytest.mark.parametrize(
    ("seq", "low", "is_taken", "code"),
    [(5, 5, False, "seq_replayed"), (4, 5, False, "seq_replayed"), (6, 5, True, "seq_reused"), (6, 5, False, None)],
)
def test_require_sequence_when_the_number_is_spent_refuses(seq, low, is_taken, code) -> None:
    job = bench.job(bench.manifest(), seq=seq)

    def call() -> None:
        acceptance.require_sequence(job, low_watermark=low, is_seq_taken=is_taken)

    if code is None:
        call()
    else:
        assert code_of(call) == code


# --- generations ------------------------------------------------------------------------------------------------------


def applied(manifest, **values) -> Applied:
    defaults = {
        "subject": manifest.subject,
        "generation": manifest.generation,
        "digest": manifest_digest(manifest),
        "presence": Presence.ENABLED,
        "drift_policy": DriftPolicy.REPORT,
        "seq": 10,
    }
    return Applied(**{**defaults, **values})


def judge(manifest, *, seq=11, now_applied=None, newest_queued=0, mode=JobMode.APPLY) -> None:
    acceptance.require_generation(
        bench.job(manifest, seq=seq, mode=mode), manifest, applied=now_applied, newest_queued=newest_queued
    )


def test_require_generation_when_older_than_applied_refuses() -> None:
    assert code_of(lambda: judge(bench.manifest(6), now_applied=applied(bench.manifest(7)))) == "stale_generation"


def test_require_generation_when_same_with_other_content_refuses() -> None:
    other = bench.manifest(7, bench.account())

    assert code_of(lambda: judge(bench.manifest(7), now_applied=applied(other))) == "generation_conflict"


def test_require_generation_when_same_content_is_asked_again_accepts() -> None:
    judge(bench.manifest(7), now_applied=applied(bench.manifest(7)))


def test_require_generation_when_a_newer_one_waits_refuses() -> None:
    assert code_of(lambda: judge(bench.manifest(6), newest_queued=7)) == "stale_generation"


def test_require_generation_when_only_a_plan_looks_past_what_waits() -> None:
    judge(bench.manifest(6), newest_queued=7, mode=JobMode.PLAN)


def test_require_generation_when_plan_is_older_than_applied_refuses() -> None:
    older = bench.manifest(6)

    assert (
        code_of(lambda: judge(older, now_applied=applied(bench.manifest(7)), mode=JobMode.PLAN)) == "stale_generation"
    )


def test_require_generation_when_the_removed_name_is_given_anew_accepts() -> None:
    judge(bench.manifest(1), seq=11, now_applied=applied(bench.manifest(9), presence=Presence.ABSENT))


def test_require_generation_when_an_older_job_would_bring_the_removed_back_refuses() -> None:
    gone = applied(bench.manifest(9), presence=Presence.ABSENT)

    assert code_of(lambda: judge(bench.manifest(8), seq=9, now_applied=gone)) == "stale_generation"


# --- arguments and tenancy --------------------------------------------------------------------------------------------


def test_decode_arguments_when_the_manifest_is_garbage_refuses() -> None:
    job = bench.job(bench.manifest(), args=b"\xc1")

    assert code_of(lambda: acceptance.decode_arguments(job)) == "malformed"


def test_decode_arguments_when_generations_differ_refuses() -> None:
    job = bench.job(bench.manifest(3), generation=4)

    assert code_of(lambda: acceptance.decode_arguments(job)) == "args_mismatch"


def test_decode_arguments_when_drift_request_is_garbage_refuses() -> None:
    job = bench.job(action=ACTION_DRIFT, args=b"nonsense")

    assert code_of(lambda: acceptance.decode_arguments(job)) == "malformed"


def test_decode_arguments_when_the_action_has_none_returns_none() -> None:
    assert acceptance.decode_arguments(bench.job(action=ACTION_NOOP)) is None


@pytest.mark.parametrize(
    ("specs", "code"),
    [
        ((bench.account("mallory"),), "foreign_spec"),
        ((bench.account(), bench.site(name="mallory")), "foreign_spec"),
        ((bench.account(), bench.pool(name="mallory")), "foreign_spec"),
        ((bench.account(), bench.site(uid=20_002)), "foreign_spec"),
        ((bench.account(), ModuleSpec(name="web")), "foreign_spec"),
    ],
)
def test_require_policy_when_a_spec_is_somebody_elses_refuses(specs, code) -> None:
    manifest = bench.manifest(1, *specs)

    assert code_of(lambda: acceptance.require_policy(manifest, known_uid=None, foreign_uids=frozenset())) == code


@pytest.mark.parametrize(
    "path",
    ["/run/wcp-php/8.2/20002.sock", "/run/docker.sock", "/run/wcp-php/8.2/../20001.sock", "/run/wcp-php/x/20001.sock"],
)
def test_require_policy_when_a_site_talks_to_a_foreign_socket_refuses(path) -> None:
    stolen = msgspec.structs.replace(bench.site(), php_socket_path=path)
    manifest = bench.manifest(1, bench.account(), stolen)

    assert (
        code_of(lambda: acceptance.require_policy(manifest, known_uid=None, foreign_uids=frozenset())) == "foreign_spec"
    )


@pytest.mark.parametrize("subject", ["alice", "account/", "tenant/alice", ""])
def test_require_policy_when_the_subject_is_none_refuses(subject) -> None:
    manifest = bench.manifest(1, subject=subject, presence=Presence.ABSENT)

    assert (
        code_of(lambda: acceptance.require_policy(manifest, known_uid=None, foreign_uids=frozenset())) == "bad_subject"
    )


def test_require_policy_when_the_node_manifest_holds_an_account_refuses() -> None:
    manifest = bench.manifest(1, bench.account(), subject="node")

    assert (
        code_of(lambda: acceptance.require_policy(manifest, known_uid=None, foreign_uids=frozenset())) == "foreign_spec"
    )


def test_require_policy_when_the_uid_changed_refuses() -> None:
    assert (
        code_of(lambda: acceptance.require_policy(bench.manifest(), known_uid=20_009, foreign_uids=frozenset()))
        == "uid_changed"
    )


def test_require_policy_when_the_uid_is_taken_refuses() -> None:
    assert (
        code_of(
            lambda: acceptance.require_policy(bench.manifest(), known_uid=None, foreign_uids=frozenset({bench.UID}))
        )
        == "uid_taken"
    )


def test_require_policy_when_all_is_the_accounts_own_accepts() -> None:
    manifest = bench.manifest(1, bench.account(), bench.pool(), bench.site(php="8.2"))

    acceptance.require_policy(manifest, known_uid=bench.UID, foreign_uids=frozenset({20_002}))
