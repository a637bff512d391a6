"""The signer as a process of its own: the same answers over its socket, and nothing that it should not sign."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding

from controller.db.base import utc_now
from controller.db.engine import Database
from controller.fleet.identity.authorities import Arrangement
from controller.fleet.identity.authority import fingerprint_of
from controller.fleet.signing.client import SignerClient
from controller.fleet.signing.job_keys import public_bytes
from controller.fleet.signing.messages import MAX_BATCH, SignJobs, encode_message
from controller.fleet.signing.policy import RATES, Rates, require_job
from controller.fleet.signing.server import SignerServer
from controller.fleet.signing.signer import LocalSigner
from shared.audit_proof import Checkpoint, is_checkpoint_signed, render_checkpoint
from shared.errors import FleetError, NotFoundError, RefusedError, UnavailableError
from shared.protocol.envelope import JOB_TYPE, verify_envelope
from shared.protocol.job import Job, encode_job
from shared.protocol.trust import TrustBundle, encode_trust_bundle, open_trust_bundle
from tests.integration.fleet.agent import Machine
from tests.integration.fleet.bench import build_bench, running

NODE_ID = "0190c0de-0000-7000-8000-000000000001"


class Process:
    """`wcpd signer`, as its unit starts it."""

    CODE = (
        "import asyncio; from controller.settings import load_settings;"
        "from controller.fleet.signing.server import run_signer; asyncio.run(run_signer(load_settings()))"
    )

    def __init__(self, folder: Path) -> None:
        self.data_dir = folder / "signer"
        self.socket = folder / "signer.sock"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("WCP360_")} | {
            "WCP360_DATA_DIR": str(self.data_dir),
            "WCP360_SIGNER_SOCKET": str(self.socket),
        }
        self.data_dir.mkdir(exist_ok=True)
        self._process = subprocess.Popen([sys.executable, "-c", self.CODE], env=environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while True:
            try:
                SignerClient(self.socket).open()
            except UnavailableError:
                assert time.monotonic() < deadline, "the signer did not start"
                assert self._process.poll() is None, "the signer ended"
                time.sleep(0.05)
            else:
                return

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait(timeout=10)
            self._process = None


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    made = Process(tmp_path)
    made.start()
    yield made
    made.kill()


@pytest.fixture
async def client(process: Process) -> AsyncIterator[SignerClient]:
    opened = SignerClient(process.socket, timeout_seconds=5.0)
    opened.open()
    yield opened
    await opened.close()


def job(client: SignerClient, **options: object) -> bytes:
    now = utc_now().timestamp()
    values: dict[str, object] = {
        "cluster_id": client.cluster_id,
        "node_id": NODE_ID,
        "node_gen": 1,
        "job_id": "job-1",
        "nonce": bytes(16),
        "seq": 1,
        "action": "fleet.noop@1",
        "args": b"",
        "resource_key": "test/1",
        "actor": "user/admin",
        "request_id": "request",
        "issued_at": now,
        "not_before": now,
        "expires_at": now + 60,
        "max_runtime_seconds": 60,
    }
    return encode_job(Job(**(values | options)))  # type: ignore[arg-type]


# --- what it does -----------------------------------------------------------------------------------------------------


async def test_signer_process_signs_jobs_with_keys_that_its_bundle_names(client: SignerClient) -> None:
    payload = job(client)

    envelope = await client.sign_job(payload)

    keys = {key.kid: Ed25519PublicKey.from_public_bytes(key.public_key) for key in await client.current_job_keys()}
    assert verify_envelope(envelope, payload_type=JOB_TYPE, keys=keys)[0] == payload


async def test_signer_process_asked_for_many_jobs_at_once_answers_each(client: SignerClient) -> None:
    payloads = [job(client, job_id=f"job-{number}") for number in range(3 * MAX_BATCH + 1)]

    envelopes = await asyncio.gather(*(client.sign_job(payload) for payload in payloads))

    assert [envelope.payload for envelope in envelopes] == payloads
    assert len({envelope.signatures for envelope in envelopes}) == len(payloads)


async def test_signer_process_refuses_one_job_of_a_batch_and_signs_the_others(client: SignerClient) -> None:
    good, bad = job(client), job(client, cluster_id="another")

    results = await asyncio.gather(client.sign_job(good), client.sign_job(bad), return_exceptions=True)

    assert not isinstance(results[0], BaseException)
    assert isinstance(results[1], RefusedError)
    assert results[1].code == "wrong_cluster"


async def test_signer_process_issues_certificates_with_the_controllers_own_names(client: SignerClient) -> None:
    issued = await client.issue_node_certificate(Machine().csr_pem(), node_id=NODE_ID)

    certificate = x509.load_pem_x509_certificate(issued.pem.encode())
    assert certificate.subject.rfc4514_string() == f"CN={NODE_ID}"
    assert issued.fingerprint == fingerprint_of(certificate.public_bytes(Encoding.DER))


async def test_signer_client_whose_signer_was_killed_and_is_back_goes_on(
    process: Process, client: SignerClient
) -> None:
    before = await client.current_job_keys()
    process.kill()
    with pytest.raises(UnavailableError):
        await client.sign_job(job(client))
    process.start()

    envelope = await client.sign_job(job(client))

    assert envelope.signatures
    assert await client.current_job_keys() == before


async def test_signer_process_started_twice_says_so(process: Process, tmp_path: Path) -> None:
    second = SignerServer(LocalSigner(tmp_path / "other"), process.socket, allowed_uids=frozenset({os.getuid()}))

    with pytest.raises(UnavailableError) as caught:
        await second.start()

    assert "another signer" in caught.value.message


async def test_fleet_with_a_signer_process_enrols_and_runs_jobs_without_a_key_of_its_own(
    sqlite_url: str, process: Process, client: SignerClient, tmp_path: Path
) -> None:
    database = Database(sqlite_url)
    bench = build_bench(database, tmp_path / "data", signer=client, signer_socket=process.socket)
    async with running(bench):
        agent = await bench.enrol()
        session = await agent.connect()
        await session.run_next()
        done = await bench.request(agent.node_id)
        await session.run_next()
        await session.close()
        assert (await bench.job(done)).state.value in ("succeeded", "running", "accepted")
    await database.close()

    keys = sorted(path.name for path in (tmp_path / "data").rglob("*.key"))
    assert keys == [f"{agent.node_id}.key", "server.key"]


# --- what it does not -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"cluster_id": "another"}, "wrong_cluster"),
        ({"issued_at": 4e9, "not_before": 4e9, "expires_at": 4e9 + 1}, "clock_skew"),
        ({"issued_at": 1.0, "not_before": 1.0, "expires_at": 2.0}, "expired"),
        ({"expires_at": utc_now().timestamp() + 86_400 * 33}, "lives_too_long"),
    ],
)
async def test_signer_process_refuses_a_job_that_no_controller_makes(
    client: SignerClient, options: dict[str, object], code: str
) -> None:
    with pytest.raises(RefusedError) as caught:
        await client.sign_job(job(client, **options))

    assert caught.value.code == code


async def test_signer_process_refuses_what_is_no_job(client: SignerClient) -> None:
    with pytest.raises(RefusedError) as caught:
        await client.sign_job(b"\x81\xa1x\x01")

    assert caught.value.code == "malformed"


async def bundle(client: SignerClient, **options: object) -> bytes:
    now = utc_now()
    values: dict[str, object] = {
        "cluster_id": client.cluster_id,
        "version": 1,
        "issued_at": now.timestamp(),
        "expires_at": (now + timedelta(days=180)).timestamp(),
        "ca_certificates": tuple(info.der for info in (await client.list_authorities()).trusted),
        "job_keys": await client.current_job_keys(),
    }
    return encode_trust_bundle(TrustBundle(**(values | options)))  # type: ignore[arg-type]


async def test_signer_process_signs_a_bundle_of_its_own_keys(client: SignerClient) -> None:
    envelope = await client.sign_trust(await bundle(client))

    root = Ed25519PublicKey.from_public_bytes(client.root_public_key)
    assert open_trust_bundle(envelope, root_keys={client.root_kid: root}).version == 1


async def test_signer_process_refuses_a_bundle_with_a_key_of_somebody_else(client: SignerClient) -> None:
    ours = (await client.current_job_keys())[0]
    swapped = msgspec.structs.replace(ours, public_key=public_bytes(Ed25519PrivateKey.generate()))
    longer = msgspec.structs.replace(ours, expires_at=ours.expires_at + 1)

    for key in (swapped, longer, msgspec.structs.replace(ours, kid="1-unknown")):
        with pytest.raises(RefusedError) as caught:
            await client.sign_trust(await bundle(client, job_keys=(key,)))
        assert caught.value.code == "foreign_key"


async def test_signer_process_refuses_a_bundle_with_an_authority_of_somebody_else(
    client: SignerClient, tmp_path: Path
) -> None:
    other = LocalSigner(tmp_path / "other")
    other.open()

    with pytest.raises(RefusedError) as caught:
        await client.sign_trust(await bundle(client, ca_certificates=(other.authority.ca_der,)))

    assert caught.value.code == "foreign_key"


async def test_signer_process_does_not_put_the_roots_signature_under_a_job(client: SignerClient) -> None:
    with pytest.raises(RefusedError) as caught:
        await client._sign_document(JOB_TYPE, job(client))

    assert caught.value.code == "wrong_type"


def checkpoint(client: SignerClient, number: int, **options: str) -> bytes:
    values = {"cluster_id": client.cluster_id, "hash": "0" * 64, "at": utc_now().isoformat()} | options
    return render_checkpoint(Checkpoint(number=number, **values)).encode()


async def test_signer_process_signs_the_end_of_the_audit_log_with_the_root_key(client: SignerClient) -> None:
    payload = checkpoint(client, 7)

    envelope = await client.sign_checkpoint(payload)

    signature = base64.b64encode(envelope.signatures[0].sig).decode()
    assert is_checkpoint_signed(payload.decode(), signature, client.root_public_key)


@pytest.mark.parametrize(
    ("number", "options", "code"),
    [
        (6, {}, "checkpoint_behind"),
        (7, {"hash": "1" * 64}, "checkpoint_behind"),
        (8, {"cluster_id": "another"}, "wrong_cluster"),
        (8, {"at": "2020-01-01T00:00:00+00:00"}, "clock_skew"),
        (8, {"at": "2020-01-01T00:00:00"}, "malformed"),
        (0, {}, "malformed"),
    ],
)
async def test_signer_process_refuses_an_end_of_the_audit_log_that_cannot_be(
    client: SignerClient, number: int, options: dict[str, str], code: str
) -> None:
    await client.sign_checkpoint(checkpoint(client, 7))

    with pytest.raises(RefusedError) as refused:
        await client.sign_checkpoint(checkpoint(client, number, **options))

    assert refused.value.code == code


async def test_signer_process_refuses_a_node_id_that_would_name_somebody_else(client: SignerClient) -> None:
    with pytest.raises(RefusedError):
        await client.issue_node_certificate(Machine().csr_pem(), node_id="x/../controller")


async def test_signer_answers_only_the_users_it_was_told(tmp_path: Path) -> None:
    path = tmp_path / "signer.sock"
    server = SignerServer(LocalSigner(tmp_path / "pki"), path, allowed_uids=frozenset({os.getuid() + 1}))
    await server.start()

    with pytest.raises(UnavailableError):
        await SignerClient(path, timeout_seconds=2.0).list_authorities()

    await server.stop()


async def test_signer_closes_on_nonsense_and_serves_others(process: Process, client: SignerClient) -> None:
    reader, writer = await asyncio.open_unix_connection(str(process.socket))
    for sent in (b"\xff\xff\xff\xff", b"\x00\x00\x00\x02\x80\x80"):
        reader, writer = await asyncio.open_unix_connection(str(process.socket))
        writer.write(sent)
        assert await reader.read() == b""
        writer.close()

    assert (await client.sign_job(job(client))).signatures


async def test_signer_socket_is_for_its_group_only(process: Process) -> None:
    assert process.socket.stat().st_mode & 0o777 == 0o660


def test_rates_when_one_actor_is_too_fast_holds_that_one_only() -> None:
    now = 0.0
    rates = Rates(clock=lambda: now)
    for _ in range(RATES["actor"].burst):
        rates.require("actor", "user/busy")

    with pytest.raises(UnavailableError) as caught:
        rates.require("actor", "user/busy")
    rates.require("actor", "user/other")
    now = 1.0
    rates.require("actor", "user/busy")

    assert caught.value.code == "signer_busy"


def test_policy_takes_a_job_that_waited_for_its_node(tmp_path: Path) -> None:
    """A revoked key makes the signer sign a waiting job again, long after it was issued."""
    signer = LocalSigner(tmp_path / "pki")
    signer.open()
    payload = job(SignerClientStub(signer.cluster_id))  # type: ignore[arg-type]

    assert require_job(payload, cluster_id=signer.cluster_id, now=utc_now() + timedelta(seconds=30)).seq == 1


class SignerClientStub:
    def __init__(self, cluster_id: str) -> None:
        self.cluster_id = cluster_id


# --- job keys ---------------------------------------------------------------------------------------------------------


async def test_signer_process_rotates_and_revokes_job_keys(client: SignerClient) -> None:
    (old,) = await client.current_job_keys()

    fresh = await client.rotate_job_key()
    both = await client.sign_job(job(client))
    await client.revoke_job_key(old.kid)
    one = await client.sign_job(job(client))

    assert {signature.kid for signature in both.signatures} == {old.kid, fresh.kid}
    assert [signature.kid for signature in one.signatures] == [fresh.kid]
    assert await client.revoked_job_keys() == (old.kid,)


async def test_signer_process_asked_to_rotate_twice_in_a_minute_makes_one_key(client: SignerClient) -> None:
    assert await client.rotate_job_key() == await client.rotate_job_key()


async def test_signer_process_whose_only_key_was_revoked_makes_another(client: SignerClient) -> None:
    (old,) = await client.current_job_keys()

    await client.revoke_job_key(old.kid)

    (fresh,) = await client.current_job_keys()
    assert fresh.kid != old.kid


async def test_signer_process_asked_to_revoke_an_unknown_key_says_so(client: SignerClient) -> None:
    with pytest.raises(NotFoundError):
        await client.revoke_job_key("1-none")


async def test_signer_process_arranges_authorities_and_keeps_what_it_drops(
    process: Process, client: SignerClient
) -> None:
    first = await client.list_authorities()
    both = await client.arrange_authorities(Arrangement(trusted=("ca", "next"), issuer="next", server_issuer="ca"))
    issued = await client.issue_node_certificate(Machine().csr_pem(), node_id=NODE_ID)
    alone = await client.arrange_authorities(Arrangement(trusted=("next",), issuer="next", server_issuer="next"))

    assert issued.issuer == "next"
    assert both.trusted[0] == first.trusted[0]
    assert alone.trusted == both.trusted[1:]
    assert (process.data_dir / "pki/retired/ca.key").exists()
    back = await client.arrange_authorities(Arrangement())
    assert back.trusted == first.trusted


def test_messages_larger_than_the_limit_are_not_sent() -> None:
    with pytest.raises(FleetError):
        encode_message(SignJobs(n=1, payloads=(bytes(4 * 1024 * 1024),) * 3))
