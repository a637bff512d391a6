"""Faults of identity: keys, certificates, clones, enrolment, the change of the authority (12, 14 to 20)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from agent.core.acceptance import open_job
from agent.core.identity import TrustStore, load_identity
from agent.link.certificate import parse_validity
from agent.link.renewal_exchange import renew_once
from agent.link.settings import read_agent_settings
from agent.link.setup_errors import SetupError
from controller.bootstrap import build_controller
from controller.core.context import SYSTEM
from controller.fleet.gateway.quarantine import TAKEOVERS_MAX
from controller.fleet.models import Enrolment
from controller.jobs.commands import get_job
from controller.settings import Settings
from shared.errors import RefusedError
from shared.protocol.envelope import JOB_TYPE, Envelope, Signature
from tests.faults.identity_bench import DAY, IdentityBench, IdentityNode
from tests.integration.conftest import running_controller, sqlite_template, sqlite_url
from tests.integration.live import wait_until

__all__ = ["sqlite_template", "sqlite_url"]


@pytest.fixture
async def bench(sqlite_url: str, tmp_path: Path) -> AsyncIterator[IdentityBench]:
    async with running_controller(sqlite_url, tmp_path) as live:
        made = IdentityBench(live, live.client(), tmp_path / "nodes")
        yield made
        await made.close()


async def wait_for(ask: Any, good: Any, *, seconds: float = 20.0) -> Any:
    """Ask until the answer is good; returns it."""
    answer = None
    try:
        async with asyncio.timeout(seconds):
            while not good(answer := await ask()):  # noqa: ASYNC110 - the truth is in the database
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(f"still {answer!r}") from None
    return answer


# --- 20: the authority is replaced ------------------------------------------------------------------------------------


async def rotation(bench: IdentityBench) -> dict[str, Any]:
    found: dict[str, Any] = await bench.get("/ca-rotation")
    return found


async def advance(bench: IdentityBench) -> dict[str, Any]:
    await wait_for(lambda: rotation(bench), lambda view: view["can_advance"])
    view: dict[str, Any] = await bench.post("/ca-rotation/advance")
    return view


async def test_fault_20_authority_replaced_with_a_node_asleep_and_all_are_back_unaided(bench: IdentityBench) -> None:
    awake, asleep = await bench.enrol("awake"), await bench.enrol("asleep")
    await awake.connect()
    await asleep.connect()
    await asleep.stop()
    before = (await rotation(bench))["authorities"][0]["id"]

    await bench.post("/ca-rotation", {"reason": "drill"})
    blocked = await wait_for(lambda: rotation(bench), lambda view: view["blocked_by"] == 1)
    assert [blocker["name"] for blocker in blocked["blockers"]] == ["asleep"]
    await bench.post("/ca-rotation/advance", status=409)
    # It sleeps for longer than its certificate lasts; then nothing waits for it any more.
    await asleep.age(8 * DAY)

    assert (await advance(bench))["phase"] == "update_clients"
    assert (await advance(bench))["phase"] == "update_servers"
    assert (await advance(bench))["phase"] == "done"
    after = await wait_for(lambda: rotation(bench), lambda view: view["is_settled"])
    await wait_until(lambda: awake.state == "connected")
    await asleep.connect()

    assert [authority["id"] for authority in after["authorities"]] != [before]
    assert awake.certificate.issuer == asleep.certificate.issuer
    assert (await bench.ping(awake))["state"] == (await bench.ping(asleep))["state"] == "succeeded"
    actions = await bench.audit_actions()
    assert actions.count("ca_rotation.advance") == 3


async def test_fault_20_authority_rolled_back_and_all_nodes_have_the_old_one_again(bench: IdentityBench) -> None:
    first, second = await bench.enrol("first"), await bench.enrol("second")
    await first.connect()
    await second.connect()
    old_issuer = first.certificate.issuer
    old_id = (await rotation(bench))["authorities"][0]["id"]
    await bench.post("/ca-rotation", {})
    await advance(bench)
    await wait_until(lambda: first.certificate.issuer != old_issuer)
    await second.stop()

    assert (await bench.post("/ca-rotation/rollback"))["phase"] == "rollback"
    await second.connect()
    assert (await advance(bench))["phase"] == "rolled_back"

    view = await wait_for(lambda: rotation(bench), lambda found: found["is_settled"])
    assert [authority["id"] for authority in view["authorities"]] == [old_id]
    assert first.certificate.issuer == second.certificate.issuer == old_issuer
    await bench.post("/ca-rotation/rollback", status=409)
    await second.stop()
    await second.connect()
    assert (await bench.ping(first))["state"] == (await bench.ping(second))["state"] == "succeeded"


async def test_fault_20_node_that_slept_through_the_change_learns_of_it_without_trusting_anybody(
    bench: IdentityBench,
) -> None:
    """Its certificate is good, and the gateway shows one of an authority that it never heard of."""
    node = await bench.enrol("sleeper")
    await node.connect()
    await bench.post("/ca-rotation", {})
    await advance(bench)
    await advance(bench)
    await wait_until(lambda: node.state == "connected")
    await node.stop()
    node.paths.authorities_pem.unlink()
    bundle = node.paths.trust_bundle
    bundle.unlink()

    await node.connect()

    assert bundle.exists()
    assert len(node.paths.authorities_pem.read_text().split("BEGIN CERTIFICATE")) == 3
    assert (await bench.ping(node))["state"] == "succeeded"


# --- 12: keys ---------------------------------------------------------------------------------------------------------


async def test_fault_12_job_signed_by_a_key_that_was_revoked_meanwhile_is_signed_anew_and_runs(
    bench: IdentityBench,
) -> None:
    node = await bench.enrol("node")
    await node.connect()
    await bench.ping(node)
    await node.stop()
    (key,) = (await bench.get("/job-keys"))["items"]
    job_id = (await bench.post(f"/nodes/{node.node_id}/ping", status=202))["jobs"][0]["id"]
    await wait_for(lambda: bench.get(f"/jobs/{job_id}"), lambda job: job["state"] == "queued")

    await bench.post(f"/job-keys/{key['kid']}/revoke")
    await node.connect()

    job = await bench.wait_job(job_id)
    assert job["state"] == "succeeded"
    states = {item["kid"]: item["state"] for item in (await bench.get("/job-keys"))["items"]}
    assert states.pop(key["kid"]) == "revoked"
    assert set(states.values()) == {"signing"}


async def test_fault_12_key_rotated_under_way_and_no_job_is_lost_and_nobody_enrols_again(
    bench: IdentityBench,
) -> None:
    node = await bench.enrol("node")
    await node.connect()
    generation = (await node.row()).node_gen

    await bench.post("/job-keys/rotate")
    results = [(await bench.ping(node))["state"] for _ in range(3)]

    assert results == ["succeeded"] * 3
    assert len((await bench.get("/job-keys"))["items"]) == 2
    assert (await node.row()).node_gen == generation
    version = (await bench.get("/job-keys"))["bundle_version"]
    await wait_for(node.row, lambda row: row.bundle_version == version)


async def test_fault_12_job_signed_by_a_revoked_key_is_refused_by_the_node(bench: IdentityBench) -> None:
    """Whoever stole the key may sign what they like: a node that has the bundle believes none of it."""
    node = await bench.enrol("node")
    await node.connect()
    job = await bench.ping(node)
    stolen = await _read_job(bench, job["id"])
    (key,) = (await bench.get("/job-keys"))["items"]
    await bench.post(f"/job-keys/{key['kid']}/revoke")
    version = (await bench.get("/job-keys"))["bundle_version"]
    await wait_for(node.row, lambda row: row.bundle_version == version)

    identity = load_identity(node.paths.executor_state_dir)
    assert identity is not None
    trust = TrustStore(node.paths.executor_state_dir, identity.public_root_keys())
    envelope = Envelope(JOB_TYPE, stolen.payload, stolen.signatures)
    with pytest.raises(RefusedError) as caught:
        open_job(envelope, identity=identity, bundle=trust.bundle, now=stolen.now)

    assert caught.value.code == "revoked_key"


async def _read_job(bench: IdentityBench, job_id: str) -> Any:
    async with bench.live.controller.database.read() as session:
        row = await get_job(session, job_id)
    signatures = msgspec.msgpack.decode(row.signatures or b"", type=tuple[Signature, ...])
    return SimpleNamespace(payload=row.payload, signatures=signatures, now=row.created_at.timestamp())


# --- 14: away for long ------------------------------------------------------------------------------------------------


async def test_fault_14_certificate_ended_while_the_node_was_away_for_8_days_is_renewed_by_itself(
    bench: IdentityBench,
) -> None:
    node = await bench.enrol("node")
    await node.age(8 * DAY)

    await node.connect()

    assert parse_validity(node.paths.node_pem.read_text()).not_after > node.certificate.not_valid_before_utc + 6 * DAY
    assert (await bench.ping(node))["state"] == "succeeded"


async def test_fault_14_node_away_for_40_days_waits_for_approval_and_keeps_its_generation(
    bench: IdentityBench,
) -> None:
    node = await bench.enrol("node")
    await node.age((7 + 40) * DAY)
    node.start()
    await wait_until(lambda: "waits for approval" in node.last_error)
    view = await bench.get(f"/nodes/{node.node_id}")
    assert view["fingerprint_words"] in node.last_error
    await node.stop()

    await bench.post(f"/nodes/{node.node_id}/approve", status=202)
    await node.connect()

    assert (await node.row()).node_gen == 1
    assert (await bench.ping(node))["state"] == "succeeded"


async def test_fault_14_node_away_for_40_days_and_rejected_stays_out(bench: IdentityBench) -> None:
    node = await bench.enrol("node")
    await node.age((7 + 40) * DAY)
    node.start()
    await wait_until(lambda: "waits for approval" in node.last_error)
    await node.stop()

    await bench.post(f"/nodes/{node.node_id}/reject")
    node.start()
    await wait_until(lambda: "rejected" in node.last_error)

    assert not (await node.row()).is_connected


# --- 15: a renewal that is cut ----------------------------------------------------------------------------------------


async def test_fault_15_answer_of_a_renewal_lost_and_both_certificates_work_until_the_next_is_used(
    bench: IdentityBench,
) -> None:
    node = await bench.enrol("node")
    await node.age(5 * DAY)  # past the half of its life, however the jitter falls
    before = node.paths.node_pem.read_bytes()
    await renew(node)
    fresh = node.paths.node_pem.read_bytes()
    assert fresh != before
    # The answer never arrived: the node still has what it had.
    node.paths.node_pem.write_bytes(before)

    await node.connect()
    assert (await bench.ping(node))["state"] == "succeeded"
    await wait_until(lambda: node.paths.node_pem.read_bytes() != before)
    await node.stop()
    await node.connect()

    assert (await bench.ping(node))["state"] == "succeeded"


async def renew(node: IdentityNode) -> None:
    await asyncio.to_thread(renew_once, read_agent_settings(node.paths), node.paths)


async def test_fault_15_old_certificate_is_worthless_once_the_next_was_used(bench: IdentityBench) -> None:
    node = await bench.enrol("node")
    await node.connect()
    await node.stop()
    stolen = node.clone("stolen")
    await renew(node)
    await node.connect()
    await node.stop()

    bench.adopt(stolen).start()
    await wait_until(lambda: stolen.state == "revoked")

    assert (await node.row()).session_epoch == 2
    await stolen.stop()
    await node.connect()


# --- 16: revoked ------------------------------------------------------------------------------------------------------


async def test_fault_16_node_revoked_at_another_process_is_cut_and_its_jobs_end(
    bench: IdentityBench, sqlite_url: str, tmp_path: Path
) -> None:
    node = await bench.enrol("node")
    await node.connect()
    # Another process of the controller: its own engine, its own memory, the same database and keys.
    other = build_controller(Settings(data_dir=tmp_path, database_url=sqlite_url, public_names=("127.0.0.1",)))
    asked = await bench.post(f"/nodes/{node.node_id}/ping", status=202)
    await bench.wait_job(asked["jobs"][0]["id"])

    await other.operations.change(SYSTEM, "revoke", lambda ctx: other.fleet.nodes.revoke(ctx, node.node_id))
    await wait_until(lambda: node.state in ("revoked", "rejected"), timeout_seconds=10.0)
    await other.database.close()

    await wait_for(node.row, lambda row: not row.is_connected)
    assert (await bench.http.post(f"/api/v1/nodes/{node.node_id}/ping")).status_code == 409
    jobs = (await bench.get(f"/jobs?node_id={node.node_id}"))["items"]
    assert {job["state"] for job in jobs} <= {"succeeded", "discarded", "indeterminate", "superseded"}


# --- 17: clones -------------------------------------------------------------------------------------------------------


async def test_fault_17_machine_that_reboots_again_and_again_is_no_clone(bench: IdentityBench) -> None:
    node = await bench.enrol("node")

    for _ in range(TAKEOVERS_MAX + 2):
        await _boot(node)

    assert (await node.row()).state.value == "active"


async def _boot(node: IdentityNode) -> None:
    """The simulator makes a boot id from nothing at each start, like a machine."""
    await node.connect()
    await node.stop()


async def test_fault_17_clone_dies_at_its_renewal_and_somebody_hears_of_it(bench: IdentityBench) -> None:
    node = await bench.enrol("node")
    await node.age(8 * DAY)
    clone = bench.adopt(node.clone("clone", has_own_machine_id=True))

    clone.start()
    await wait_until(lambda: clone.state == "revoked")

    assert "belongs to another machine" in clone.last_error
    assert "node.clone_suspected" in await bench.audit_actions()
    await node.connect()
    assert (await bench.ping(node))["state"] == "succeeded"


async def test_fault_17_exact_copy_dies_at_its_renewal_once_the_node_has_renewed(bench: IdentityBench) -> None:
    node = await bench.enrol("node")
    await node.age(8 * DAY)
    clone = bench.adopt(node.clone("clone"))
    await node.connect()

    clone.start()
    await wait_until(lambda: clone.state == "revoked")

    assert "copy of an earlier state" in clone.last_error
    assert "node.clone_suspected" in await bench.audit_actions()
    assert node.state == "connected"


# --- 18: enrolment ----------------------------------------------------------------------------------------------------


async def test_fault_18_token_used_by_two_machines_at_once_makes_one_node(bench: IdentityBench) -> None:
    token = await bench.token()
    first = IdentityNode(bench.live, "first", bench.folder)
    second = IdentityNode(bench.live, "second", bench.folder)

    results = await asyncio.gather(first.enrol(token), second.enrol(token), return_exceptions=True)

    refused = [result for result in results if isinstance(result, BaseException)]
    assert [getattr(error, "code", "") for error in refused] == ["token_used"]
    assert len((await bench.get("/nodes"))["items"]) == 1


async def test_fault_18_answer_of_an_enrolment_lost_and_the_same_request_gets_the_same_node(
    bench: IdentityBench,
) -> None:
    token = await bench.token(name="node")
    node = IdentityNode(bench.live, "node", bench.folder)
    await node.enrol(token)
    first_id = node.node_id
    # Power was lost before anything of the answer was written: only key and request are there.
    pem = node.paths.node_pem.read_bytes()
    for path in (node.paths.agent_toml, node.paths.identity_json, node.paths.trust_bundle, node.paths.node_pem):
        path.unlink()
    key, _, _ = pem.partition(b"-----BEGIN CERTIFICATE-----")
    node.paths.pending_key.write_bytes(key)
    node.paths.pending_csr.write_text(f"token {token.split('.')[1]}\n" + await _kept_csr(bench, first_id))

    await node.enrol(token)

    assert node.node_id == first_id
    await bench.adopt(node).connect()


async def _kept_csr(bench: IdentityBench, node_id: str) -> str:
    async with bench.live.controller.database.read() as session:
        found = select(Enrolment.csr_pem).where(Enrolment.node_id == node_id)
        return str((await session.execute(found)).scalar_one())


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"allowed_networks": ["192.0.2.0/24"]}, "wrong_network"),
        ({"approval": "prestaged", "csr_hash": "0" * 64}, "not_prestaged"),
    ],
)
async def test_fault_18_token_used_outside_its_limits_is_refused(
    bench: IdentityBench, options: dict[str, Any], code: str
) -> None:
    node = IdentityNode(bench.live, "node", bench.folder)

    with pytest.raises(SetupError) as caught:
        await node.enrol(await bench.token(**options))

    assert getattr(caught.value, "code", "") == code
    assert (await bench.get("/nodes"))["items"] == []


async def test_fault_18_token_guessed_five_times_is_worthless(bench: IdentityBench) -> None:
    token = await bench.token()
    prefix, token_id, secret, pin = token.split(".")
    for attempt in range(5):
        wrong = f"{prefix}.{token_id}.{attempt:064x}.{pin}"
        with pytest.raises(SetupError):
            await IdentityNode(bench.live, f"guess-{attempt}", bench.folder).enrol(wrong)

    with pytest.raises(SetupError) as caught:
        await IdentityNode(bench.live, "right", bench.folder).enrol(token)

    assert secret
    assert getattr(caught.value, "code", "") == "token_unknown"


# --- 19: somebody in between ------------------------------------------------------------------------------------------


async def test_fault_19_authority_that_the_token_does_not_name_is_refused(bench: IdentityBench) -> None:
    prefix, token_id, secret, _ = (await bench.token()).split(".")
    node = IdentityNode(bench.live, "node", bench.folder)

    with pytest.raises(SetupError) as caught:
        await node.enrol(".".join((prefix, token_id, secret, "f" * 64)))

    assert getattr(caught.value, "code", "") == "wrong_pin"
    assert (await bench.get("/nodes"))["items"] == []


async def test_fault_19_token_made_while_the_authority_is_replaced_has_two_pins_and_works_in_each_phase(
    bench: IdentityBench,
) -> None:
    await bench.post("/ca-rotation", {})
    await wait_for(lambda: rotation(bench), lambda view: view["is_settled"])
    tokens = [await bench.token(name=f"node-{number}") for number in range(3)]
    assert {len(token.split(".")) for token in tokens} == {5}

    for number, token in enumerate(tokens):
        node = IdentityNode(bench.live, f"node-{number}", bench.folder)
        await node.enrol(token)
        await bench.adopt(node).connect()
        if number < 2:
            await advance(bench)

    assert (await rotation(bench))["phase"] == "update_servers"
