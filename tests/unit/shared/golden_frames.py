"""One example of every frame of fleet.v1 with fixed values: what an agent of capability 1 really sends and takes.

The bytes lie in golden/v1/*.hex and are never rewritten: a later release must still read them. `python -m
tests.unit.shared.golden_frames` adds the files of frames that have none yet.
"""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shared.protocol import frames, health, local, renewal, streams, witness
from shared.protocol.envelope import JOB_TYPE, sign_envelope
from shared.protocol.job import (
    ChangeKind,
    CommandPurpose,
    CommandRun,
    ErrorBody,
    Job,
    JobResult,
    JobState,
    PlannedChange,
    Proof,
    ResourceOutcome,
    ResourceReport,
    encode_job,
)
from shared.protocol.release import (
    RELEASE_KEYS_TYPE,
    RELEASE_TYPE,
    ReleaseKey,
    ReleaseKeys,
    ReleaseManifest,
    SignedRelease,
    encode_release_document,
)
from shared.protocol.update import UpdateReport, UpdateState
from shared.specs.account import MIB, AccountSpec, ResourceLimits
from shared.specs.manifest import Manifest, Suspension, encode_manifest
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec, php_socket_path
from shared.specs.site import SiteSpec

FOLDER = Path(__file__).parent / "golden" / "v1"
KEY = Ed25519PrivateKey.from_private_bytes(b"\x07" * 32)

MANIFEST = Manifest(
    subject="account/alice",
    generation=3,
    suspension=Suspension(reason="unpaid"),
    specs=(
        ModuleSpec(name="web", settings={"a": "b"}),
        AccountSpec(name="alice", uid=20_001, limits=ResourceLimits(cpu_percent=50, memory_bytes=256 * MIB)),
        PhpPoolSpec(account="alice", uid=20_001, version="8.2"),
        SiteSpec(
            account="alice",
            uid=20_001,
            domain="example.com",
            aliases=("www.example.com",),
            php_socket_path=php_socket_path("8.2", 20_001),
        ),
    ),
    held=("site/parked.example.com",),
)
JOB = Job(
    cluster_id="c", node_id="n", node_gen=1, job_id="0192f0c1-0000-7000-8000-000000000001", nonce=b"0123456789abcdef",
    seq=7, action="manifest.converge@1", args=encode_manifest(MANIFEST), resource_key="account/alice", generation=3,
    actor="user/u", request_id="r", issued_at=1.5, not_before=1.5, expires_at=3601.5, max_runtime_seconds=300,
)  # fmt: skip
ENVELOPE = sign_envelope(JOB_TYPE, encode_job(JOB), {"k1": KEY})
ERROR = ErrorBody(code="config_refused", message="unknown directive", hint="Mend it.", context={"line": 3})
RESULT = JobResult(
    job_id=JOB.job_id,
    state=JobState.FAILED,
    generation=3,
    changes=(
        PlannedChange(
            resource="account/alice", action="ensure_user", kind=ChangeKind.CREATE, target="alice", reason="new",
            diff="+x", undo="remove_user alice",
        ),
    ),
    resources=(ResourceReport(key="site/example.com", outcome=ResourceOutcome.PARKED, error=ERROR),),
    proofs=(
        Proof(
            resource="account/alice", limit="memory_bytes", wanted=1, enforced=1, source="/sys/fs/cgroup/x", read_at=2.5
        ),
    ),
    reloads=("nginx.service",),
    risks=("none",),
    error=ERROR,
    is_rolled_back=True,
    started_at=1.5,
    finished_at=2.5,
)  # fmt: skip
DRIFT = frames.DriftReport(
    subjects=("account/alice",),
    findings=(frames.DriftFinding(subject="account/alice", key="site/example.com", summary="changed", diff="-a"),),
    checked_at=2.5,
)

EXPLAINED = JobResult(
    job_id=JOB.job_id,
    state=JobState.FAILED,
    generation=3,
    resources=(
        ResourceReport(key="site/example.com", outcome=ResourceOutcome.PARKED, error=ERROR, diff="+not_a_directive\n"),
    ),
    commands=(
        CommandRun(
            resource="site/example.com", purpose=CommandPurpose.VALIDATOR, argv=("/usr/sbin/nginx", "-t"), exit_code=1,
            seconds=0.25, output="unknown directive",
        ),
    ),
    error=ERROR,
    started_at=1.5,
    finished_at=2.5,
)  # fmt: skip
HEALTH = health.HealthReport(
    modules=(
        health.ModuleHealth(
            name="web",
            checks=(health.HealthCheck(name="service", is_good=False, note="nginx.service is not running"),),
            version="1.22.1-9",
            last_reload_at=1.5,
            units=("nginx.service",),
        ),
    ),
    checked_at=2.5,
)

RELEASE = SignedRelease(
    keys=sign_envelope(
        RELEASE_KEYS_TYPE,
        encode_release_document(
            ReleaseKeys(
                cluster_id="c", version=3, issued_at=1.5, expires_at=3601.5,
                keys=(ReleaseKey(kid="r1", public_key=bytes(range(32)), not_before=0.5, expires_at=7201.5),),
            )
        ),
        {"root-1": KEY},
    ),
    manifest=sign_envelope(
        RELEASE_TYPE,
        encode_release_document(
            ReleaseManifest(
                cluster_id="c", number=2, version="0.2.0", build="0.2.0-0123456789ab", sha256="ab" * 32,
                size_bytes=9_000_000, capability=2, architecture="x86_64", min_from="0.1.0", issued_at=1.5,
                expires_at=3601.5,
            )
        ),
        {"r1": KEY},
    ),
)  # fmt: skip
UPDATED = UpdateReport(
    attempt_id=JOB.job_id, state=UpdateState.UPDATED, build="0.2.0-0123456789ab", from_build="0.1.0-ba9876543210",
    finished_at=2.5,
)  # fmt: skip
ROLLED_BACK = UpdateReport(
    attempt_id=JOB.job_id, state=UpdateState.ROLLED_BACK, build="0.2.0-0123456789ab", from_build="0.1.0-ba9876543210",
    finished_at=2.5, error=ERROR,
)  # fmt: skip
EXAMPLES: dict[str, frames.Frame] = {
    "hello": frames.Hello(
        capability=1, oldest_capability=1, node_id="n", node_gen=1, boot_id="b", machine_id_hash="m",
        journal_epoch="e", last_seq=6, event_head=9, bundle_version=2, agent_version="0.1.0", clock=1.5,
        modules={"web": "1"},
    ),
    "hello_witness": frames.Hello(
        capability=2, oldest_capability=1, node_id="n", node_gen=1, boot_id="b", machine_id_hash="m",
        journal_epoch="e", last_seq=7, event_head=9, bundle_version=3, agent_version="0.2.0", clock=1.5,
        modules={"web": "0.2.0"}, build="0.2.0-0123456789ab", can_witness=True,
    ),
    "checkpoint": witness.ShowCheckpoint(payload='{"at":"t","cluster_id":"c","hash":"h","number":7}', kid="root", signature="c2ln"),
    "checkpoint_quiet": witness.ShowCheckpoint(payload="{}", kid="root", signature="c2ln", wants_signature=False),
    "checkpoint_seen": witness.CheckpointSeen(number=7, hash="h", statement="{}", signature="c2ln", fingerprint="f"),
    "checkpoint_refused": witness.CheckpointSeen(number=7, hash="h", refusal="checkpoint_fork", known="{}"),
    "welcome": frames.Welcome(
        capability=1, session_epoch=4, events_acked=8, heartbeat_seconds=15.0, metrics_seconds=30.0,
        drift_check_seconds=1800.0, server_time=1.5, bundle_version=2,
    ),
    "hello_gaps": frames.Hello(
        capability=2, oldest_capability=1, node_id="n", node_gen=1, boot_id="b", machine_id_hash="m",
        journal_epoch="e", last_seq=6, event_head=9, bundle_version=2, agent_version="0.1.0", clock=1.5,
        modules={"web": "1"}, seq_gaps=(3, 5),
    ),
    "heartbeat_gaps": frames.Heartbeat(clock=1.5, running_jobs=1, seq_gaps=(3, 5)),
    "reject": frames.Reject(code="revoked", message="The node was revoked.", is_fatal=True),
    "drain": frames.Drain(window_seconds=60.0),
    "heartbeat": frames.Heartbeat(clock=1.5, running_jobs=1),
    "job": frames.OfferJob(envelope=ENVELOPE, job_id=JOB.job_id, seq=7),
    "job_cancel": frames.CancelJob(job_id=JOB.job_id),
    "trust_bundle": frames.OfferTrust(envelope=ENVELOPE),
    "cert_renew": renewal.RenewCertificate(within_seconds=30.0),
    "trust_report": renewal.TrustReport(bundle_version=3),
    "local_trust_taken_authorities": local.TrustTaken(version=3, ca_certificates=(b"der",)),
    "ack": frames.AckEvents(events_upto=9),
    "drift_check": frames.CheckDrift(subjects=("account/alice",)),
    "job_ack": frames.AckJob(job_id=JOB.job_id, seq=7, state=JobState.RECEIVED),
    "job_ack_refused": frames.AckJob(job_id=JOB.job_id, seq=7, state=JobState.REFUSED, error=ERROR),
    "progress": frames.Progress(job_id=JOB.job_id, number=1, done=2, total=5, message="write_file"),
    "evt_result": frames.Event(number=9, kind="result", result=RESULT),
    "evt_drift": frames.Event(number=10, kind="drift", drift=DRIFT),
    "metrics": frames.Metrics(at=1.5, gauges={"cpu_percent": 12.5}),
    "log": frames.LogLine(at=1.5, level="warning", message="clock", job_id=JOB.job_id),
    "stream_open": streams.OpenStream(sid=1, grant=ENVELOPE, credit=65_536),
    "stream_opened": streams.StreamOpened(sid=1),
    "stream_data": streams.StreamData(sid=1, offset=5, data=b"five more"),
    "stream_credit": streams.StreamCredit(sid=1, upto=131_072),
    "stream_close": streams.CloseStream(sid=1, total=14, sha256=b"\x05" * 32),
    "stream_close_failed": streams.CloseStream(sid=1, code="no_log", message="there is no such log yet"),
    "stream_list": streams.ListStreams(sids=(1, 3), newest=4),
    "local_worker": local.OpenWorker(ref="r1", envelope=ENVELOPE),
    "local_worker_opened": local.WorkerOpened(ref="r1", socket_path="/run/wcp360/streams/20001-0.sock"),
    "local_worker_refused": local.WorkerOpened(ref="r1", error=ERROR),
    "hello_build": frames.Hello(
        capability=2, oldest_capability=1, node_id="n", node_gen=1, boot_id="b", machine_id_hash="m",
        journal_epoch="e", last_seq=7, event_head=9, bundle_version=3, agent_version="0.2.0", clock=1.5,
        modules={"web": "0.2.0"}, build="0.2.0-0123456789ab",
    ),
    "update": frames.OfferUpdate(attempt_id=JOB.job_id, release=RELEASE, path="/bundle/releases/0.2.0-0123456789ab.tar.gz"),
    "evt_update": frames.Event(number=12, kind="update", update=UPDATED),
    "evt_update_failed": frames.Event(number=13, kind="update", update=ROLLED_BACK),
    "health": health.NodeHealth(report=HEALTH),
    "health_check": health.CheckHealth(),
    "quiet": health.Quiet(until=3601.5, reason="node in maintenance until somebody ends it, by ada: new disk"),
    "evt_result_commands": frames.Event(number=11, kind="result", result=EXPLAINED),
    "local_health": local.RequestHealth(),
    "local_health_found": local.HealthFound(report=HEALTH),
    "local_usage": local.RequestUsage(after="adam"),
    "local_usage_found": local.UsageFound(
        homes=(local.HomeUse(account="alice", disk_bytes=4096, inodes=7),), is_complete=False
    ),
    "local_drift_quiet": local.RequestDrift(subjects=("account/alice",), may_repair=False),
    "local_submit": local.SubmitJob(envelope=ENVELOPE),
    "local_cancel": local.CancelLocal(job_id=JOB.job_id),
    "local_trust": local.SubmitTrust(envelope=ENVELOPE),
    "local_drift": local.RequestDrift(subjects=("account/alice",)),
    "local_stored": local.ResultStored(job_id=JOB.job_id),
    "local_status": local.RequestStatus(),
    "local_accepted": local.JobAccepted(job_id=JOB.job_id, seq=7, state=JobState.RECEIVED),
    "local_progress": local.JobProgress(job_id=JOB.job_id, number=1, done=2, total=5, message="write_file"),
    "local_finished": local.JobFinished(result=RESULT),
    "local_drift_found": local.DriftFound(report=DRIFT),
    "local_trust_taken": local.TrustTaken(version=2),
    "local_executor_status": local.ExecutorStatus(
        journal_epoch="e", last_seq=6, bundle_version=2, node_id="n", node_gen=1, cluster_id="c", running_jobs=0
    ),
    "local_executor_status_gaps": local.ExecutorStatus(
        journal_epoch="e", last_seq=6, bundle_version=2, node_id="n", node_gen=1, cluster_id="c", running_jobs=0,
        seq_gaps=(3, 5),
    ),
    "local_complaint": local.Complaint(error=ERROR),
}  # fmt: skip


def encode_example(name: str) -> bytes:
    """The bytes this release would send for the example."""
    frame = EXAMPLES[name]
    return local.encode_local(frame) if name.startswith("local_") else frames.encode_frame(frame)


def main() -> None:
    """Write what is missing; never overwrite."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in EXAMPLES:
        path = FOLDER / f"{name}.hex"
        if not path.exists():
            path.write_text(encode_example(name).hex() + "\n")


if __name__ == "__main__":
    main()
