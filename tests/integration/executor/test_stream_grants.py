"""Grants at the executor: one worker for a good one, a refusal with its code for every other."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from agent.contract.workers import WorkerSide
from agent.core.executor import Executor
from shared.errors import UnavailableError
from shared.protocol.envelope import JOB_TYPE, Envelope, sign_envelope
from shared.protocol.grant import GRANT_TYPE, KIND_LOG_TAIL, StreamGrant, encode_grant
from shared.protocol.local import OpenWorker, WorkerOpened
from shared.protocol.worker import WorkerOrder
from shared.specs.base import Presence
from tests.integration.executor.bench import (
    CLUSTER,
    JOB_KEY,
    NODE,
    NOW,
    UID,
    Bench,
    bundle,
    identity,
    job,
    job_key,
    key_of,
    manifest,
    signed,
)

NONCE = b"0123456789abcdef"


class FakeLauncher:
    """Remembers orders and starts nothing."""

    def __init__(self) -> None:
        self.orders: list[WorkerOrder] = []
        self.failure: Exception | None = None

    async def launch(self, order: WorkerOrder) -> str:
        if self.failure is not None:
            raise self.failure
        self.orders.append(order)
        return f"/run/{len(self.orders)}.sock"


class StreamBench(Bench):
    """A bench whose node starts workers."""

    def open(self) -> None:
        super().open()
        self.launcher = FakeLauncher()
        side = WorkerSide(launcher=self.launcher, peer_uids=(0, 998), grants_dir=self.state_dir / "grants")
        self.use(side)

    def use(self, side: WorkerSide | None, **identity_values) -> None:
        self.node = replace(self.node, workers=side)
        self.executor = Executor(self.node, identity=identity(**identity_values), trust=self.trust)
        self.executor.subscribe(self.frames.append)

    async def ask(self, envelope: Envelope, ref: str = "r1") -> WorkerOpened:
        assert self.executor.answer(OpenWorker(ref=ref, envelope=envelope)) == ()
        await self.settle()
        (answer,) = [frame for frame in self.frames if isinstance(frame, WorkerOpened)]
        self.frames.clear()
        assert answer.ref == ref
        return answer

    async def refusal(self, envelope: Envelope) -> str:
        answer = await self.ask(envelope)
        assert answer.error is not None
        assert self.launcher.orders == []
        return answer.error.code


@pytest.fixture
async def bench(tmp_path):
    built = StreamBench(tmp_path)
    await built.executor.start()
    await built.run(job(manifest()))
    built.frames.clear()
    yield built
    await built.executor.stop(grace_seconds=0.0)
    built.journal.close()


def grant(**values) -> StreamGrant:
    defaults = {
        "cluster_id": CLUSTER,
        "node_id": NODE,
        "node_gen": 1,
        "kind": KIND_LOG_TAIL,
        "account": "alice",
        "uid": UID,
        "path": "example.com.access.log",
        "args": b"args",
        "max_bytes": 1000,
        "nonce": NONCE,
        "issued_at": NOW,
        "expires_at": NOW + 60,
        "actor": "user/u",
        "request_id": "r",
    }
    return StreamGrant(**{**defaults, **values})


def signed_grant(a_grant: StreamGrant, *, payload_type: str = GRANT_TYPE, kid: str = "job-1", key=JOB_KEY) -> Envelope:
    return sign_envelope(payload_type, encode_grant(a_grant), {kid: key})


async def test_grant_when_good_starts_a_worker_of_the_account_with_what_was_signed(bench) -> None:
    answer = await bench.ask(signed_grant(grant()))

    assert (answer.error, answer.socket_path) == (None, "/run/1.sock")
    assert bench.launcher.orders == [
        WorkerOrder(
            kind=KIND_LOG_TAIL,
            account="alice",
            uid=UID,
            root="/var/log/wcp360/sites/alice",
            path="example.com.access.log",
            args=b"args",
            max_bytes=1000,
            peer_uids=(0, 998),
        )
    ]


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"cluster_id": "other"}, "wrong_cluster"),
        ({"node_id": "other"}, "wrong_node"),
        ({"node_gen": 2}, "wrong_node_generation"),
        ({"kind": "file.read"}, "unknown_action"),
        ({"account": "bob"}, "unknown_account"),
        ({"uid": UID + 1}, "unknown_account"),
        ({"uid": 0}, "unknown_account"),
        ({"issued_at": NOW + 500, "expires_at": NOW + 560}, "clock_skew"),
        ({"issued_at": NOW - 500, "expires_at": NOW - 440}, "expired"),
    ],
)
async def test_grant_when_it_does_not_fit_this_node_is_refused(bench, values, code) -> None:
    assert await bench.refusal(signed_grant(grant(**values))) == code


async def test_grant_when_signed_by_nobody_we_know_is_refused(bench) -> None:
    good = signed_grant(grant())

    assert await bench.refusal(signed_grant(grant(), key=key_of("other"))) == "bad_signature"
    assert await bench.refusal(signed_grant(grant(), kid="job-9")) == "unknown_key"
    assert await bench.refusal(msgspec.structs.replace(good, payload=good.payload[:-1] + b"x")) == "bad_signature"
    assert await bench.refusal(Envelope(payload_type=GRANT_TYPE, payload=b"", signatures=())) == "unknown_key"
    assert await bench.refusal(signed_grant(grant(), payload_type=JOB_TYPE)) == "wrong_type"


async def test_job_when_offered_as_a_grant_is_refused_by_its_type(bench) -> None:
    assert await bench.refusal(signed(job(manifest(2), seq=2))) == "wrong_type"


async def test_grant_when_its_key_may_only_sign_other_things_is_refused(bench) -> None:
    bench.trust.bundle = bundle(job_keys=(job_key(actions=("manifest.*",)),))

    assert await bench.refusal(signed_grant(grant())) == "out_of_scope"


async def test_grant_when_used_twice_is_refused_also_after_a_restart(bench) -> None:
    envelope = signed_grant(grant())
    assert (await bench.ask(envelope)).error is None

    again = await bench.ask(envelope)
    bench.use(bench.node.workers)
    after_restart = await bench.ask(envelope)

    assert [again.error.code, after_restart.error.code] == ["grant_replayed", "grant_replayed"]
    assert len(bench.launcher.orders) == 1


async def test_used_grants_when_they_are_too_old_to_be_used_are_forgotten(bench) -> None:
    await bench.ask(signed_grant(grant()))
    folder = bench.state_dir / "grants"
    assert [path.name for path in folder.iterdir()] == [NONCE.hex()]

    bench.clock = NOW + 3600
    later = grant(nonce=b"fedcba9876543210", issued_at=bench.clock, expires_at=bench.clock + 60)
    assert (await bench.ask(signed_grant(later))).error is None

    assert [path.name for path in folder.iterdir()] == [later.nonce.hex()]


async def test_grant_when_the_account_was_deleted_is_refused(bench) -> None:
    await bench.run(job(manifest(2, presence=Presence.ABSENT), seq=2))
    bench.frames.clear()

    assert await bench.refusal(signed_grant(grant())) == "unknown_account"


async def test_grant_when_the_host_cannot_start_a_worker_says_so(bench) -> None:
    bench.launcher.failure = UnavailableError("the account's worker did not start", code="worker_failed")
    failed = await bench.ask(signed_grant(grant()))
    bench.use(None)
    without = await bench.ask(signed_grant(grant(nonce=b"fedcba9876543210")))

    assert [failed.error.code, without.error.code] == ["worker_failed", "no_workers"]
