"""Faults 7 to 10: what a gateway in wrong hands can do to the frames between controller and node, and what comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import msgspec
from sqlalchemy import func, select

from controller.core.audit.models import AuditEntry
from controller.db.base import utc_now
from controller.jobs.models import Job, JobTransition
from controller.jobs.signatures import TRUST_CODES
from controller.jobs.states import JobState
from controller.jobs.transitions import transition
from shared.protocol.envelope import JOB_TYPE, TRUST_TYPE, Envelope, Signature, sign_envelope
from shared.protocol.frames import AckJob, Event, Frame, Heartbeat, OfferJob
from shared.protocol.job import JobState as NodeJobState
from tests.faults.invariants import check_invariants
from tests.faults.node_process import host_file, read_durable_state
from tests.faults.processes import wait_until
from tests.faults.rogue_gateway import RogueGateway, read_job_keys, rogue_gateway
from tests.faults.stage import Stage
from tests.faults.workload import Operator, work

TIMES = 10


def ten_times(*kinds: type[Frame]) -> Callable[[Frame], Iterable[Frame]]:
    return lambda frame: [frame] * (TIMES if isinstance(frame, kinds) else 1)


async def read_notes(stage: Stage, job_id: str) -> list[str]:
    async with stage.database.read() as session:
        statement = select(JobTransition.note).where(JobTransition.job_id == job_id).order_by(JobTransition.id)
        return list((await session.execute(statement)).scalars())


async def read_audit(stage: Stage, job_id: str) -> list[Any]:
    async with stage.database.read() as session:
        statement = select(AuditEntry).where(AuditEntry.target == f"job/{job_id}")
        return [entry.after for entry in (await session.execute(statement)).scalars()]


# --- 7 ----------------------------------------------------------------------------------------------------------------


async def test_fault_07_every_frame_ten_times_also_across_restarts_has_one_effect(stage: Stage, kind: str) -> None:
    async with rogue_gateway(stage) as rogue:
        rogue.down, rogue.up = ten_times(OfferJob), ten_times(Event, AckJob)
        await stage.start_all()
        working = asyncio.create_task(work(stage, rounds=4))
        node = stage.nodes["sim-1"]
        await wait_until(lambda: len(rogue.frames_to(node, OfferJob)) >= 2, what="two jobs")
        await node.process.kill()
        await stage.start_node("sim-1")
        await stage.restart_controller()
        await working
        await stage.settle()

        captured = rogue.frames_to(node, OfferJob)
        for offer in captured * TIMES:
            await rogue.inject(node, offer)
        last = captured[-1].job_id
        count = len(captured) * TIMES
        await wait_until(lambda: len(rogue.frames_of(node, AckJob)) >= count, what="answers to the repetitions")
        await stage.settle()

        answers = [frame for frame in rogue.frames_of(node, Event) if frame.result and frame.result.job_id == last]
        assert len({msgspec.msgpack.encode(answer.result) for answer in answers}) == 1
        await check_invariants(stage)


# --- 8 ----------------------------------------------------------------------------------------------------------------


async def test_fault_08_an_older_generation_that_comes_late_is_refused_as_stale(stage: Stage, kind: str) -> None:
    held: list[OfferJob] = []

    def hold_first(frame: Frame) -> Iterable[Frame]:
        if isinstance(frame, OfferJob) and not held:
            held.append(frame)
            return ()
        return (frame,)

    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        operator, node = Operator(stage), stage.nodes["sim-1"]
        site = await operator.find("/sites", "domain", "ada.example")
        rogue.down = hold_first
        await operator.move_site(site["id"], "older")
        await wait_until(lambda: bool(held), what="the older generation")
        await give_up(stage, held[0].job_id)
        await operator.move_site(site["id"], "newer")
        await wait_until(lambda: "newer" in site_file(stage, "sim-1", "ada.example"), what="the newer generation")

        await rogue.inject(node, held[0])

        answer = await rogue.wait_answer(node, AckJob, lambda frame: frame.job_id == held[0].job_id)
        assert answer.state is NodeJobState.REFUSED
        assert answer.error.code == "stale_generation"
        # The line has carried the answer; the controller, for which a given up job has ended, writes it a little later.
        await stage.wait_count(in_state(held[0].job_id, JobState.REFUSED), 1, what="the refusal")
        await stage.settle()
        job = await stage.call("GET", f"/jobs/{held[0].job_id}")
        assert (job["state"], job["error"]["code"]) == ("refused", "stale_generation")
        await check_invariants(stage)


async def give_up(stage: Stage, job_id: str) -> None:
    """As the engine does after the last delivery that nobody acknowledged: only so can two be under way at once."""
    async with stage.database.write() as session:
        assert await transition(session, job_id, {JobState.OFFERED}, JobState.STUCK, now=utc_now(), note="given up")


def site_file(stage: Stage, name: str, domain: str) -> str:
    host = read_durable_state(host_file(stage.nodes[name].root))
    assert host is not None
    return host.host.paths[f"/etc/nginx/wcp360/sites/{domain}.conf"].content


# --- 9 ----------------------------------------------------------------------------------------------------------------


async def test_fault_09_a_dropped_job_is_missed_by_its_number_and_sent_again(stage: Stage, kind: str) -> None:
    dropped: list[OfferJob] = []

    def drop_first(frame: Frame) -> Iterable[Frame]:
        if isinstance(frame, OfferJob) and not dropped:
            dropped.append(frame)
            return ()
        return (frame,)

    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        operator = Operator(stage)
        site = await operator.find("/sites", "domain", "ada.example")
        rogue.down = drop_first
        await operator.move_site(site["id"], "dropped-once")
        await wait_until(lambda: bool(dropped), what="a job to drop")
        # Only a later number shows that an earlier one is missing.
        assert (await stage.wait_job(await operator.ping("sim-1")))["state"] == "succeeded"

        job = await stage.wait_job(dropped[0].job_id)

        assert job["state"] == "succeeded"
        notes = await read_notes(stage, job["id"])
        assert f"number {dropped[0].seq} never arrived; it is sent again" in notes, notes
        await stage.settle()
        await check_invariants(stage)


async def test_fault_09_a_number_that_was_withdrawn_is_no_loss(stage: Stage) -> None:
    """A job that was cancelled after it was signed leaves a gap for ever; nobody waits for it."""
    async with rogue_gateway(stage) as rogue:
        await stage.start_controller()
        operator, node = Operator(stage), stage.nodes["sim-1"]
        withdrawn = await operator.ping("sim-1")
        await stage.wait_count(in_state(withdrawn, JobState.QUEUED), 1)
        await stage.call("POST", f"/jobs/{withdrawn}/cancel")
        await stage.start_node("sim-1")
        await stage.start_node("sim-2")
        assert (await stage.wait_job(await operator.ping("sim-1")))["state"] == "succeeded"

        await rogue.wait_answer(node, Heartbeat, lambda frame: bool(frame.seq_gaps))
        await stage.settle()
        assert (await stage.call("GET", f"/jobs/{withdrawn}"))["state"] == "cancelled"
        await check_invariants(stage)


def in_state(job_id: str, state: JobState) -> Any:
    return select(func.count()).select_from(Job).where(Job.id == job_id, Job.state == state)


# --- 10 ---------------------------------------------------------------------------------------------------------------


def flip_payload(offer: OfferJob, stage: Stage) -> Envelope:
    payload = bytearray(offer.envelope.payload)
    payload[len(payload) // 2] ^= 1
    return msgspec.structs.replace(offer.envelope, payload=bytes(payload))


def swap_signature(offer: OfferJob, stage: Stage) -> Envelope:
    """A good signature of the right key, over another job."""
    other = sign_envelope(JOB_TYPE, offer.envelope.payload + b"\xc0", read_job_keys(stage))
    return msgspec.structs.replace(offer.envelope, signatures=other.signatures)


def rename_key(offer: OfferJob, stage: Stage) -> Envelope:
    signatures = tuple(Signature(kid="nobody", sig=signature.sig) for signature in offer.envelope.signatures)
    return msgspec.structs.replace(offer.envelope, signatures=signatures)


def confuse_type(offer: OfferJob, stage: Stage) -> Envelope:
    """The job's bytes under a signature that was made for another type of payload."""
    other = sign_envelope(TRUST_TYPE, offer.envelope.payload, read_job_keys(stage))
    return msgspec.structs.replace(other, payload_type=JOB_TYPE)


def show_other_type(offer: OfferJob, stage: Stage) -> Envelope:
    return msgspec.structs.replace(offer.envelope, payload_type=TRUST_TYPE)


def strip_signatures(offer: OfferJob, stage: Stage) -> Envelope:
    return msgspec.structs.replace(offer.envelope, signatures=())


def cut_payload(offer: OfferJob, stage: Stage) -> Envelope:
    return msgspec.structs.replace(offer.envelope, payload=offer.envelope.payload[:-20])


def cut_and_sign(offer: OfferJob, stage: Stage) -> Envelope:
    """Even under a good signature, half a job is none."""
    return sign_envelope(JOB_TYPE, offer.envelope.payload[:-20], read_job_keys(stage))


def add_field_and_sign(offer: OfferJob, stage: Stage) -> Envelope:
    payload = msgspec.msgpack.encode(msgspec.msgpack.decode(offer.envelope.payload) | {"also": "this"})
    return sign_envelope(JOB_TYPE, payload, read_job_keys(stage))


TAMPERINGS = {
    "payload": (flip_payload, "bad_signature"),
    "swapped": (swap_signature, "bad_signature"),
    "key id": (rename_key, "unknown_key"),
    "type": (confuse_type, "bad_signature"),
    "shown type": (show_other_type, "wrong_type"),
    "no signature": (strip_signatures, "unknown_key"),
    "cut": (cut_payload, "bad_signature"),
    "cut and signed": (cut_and_sign, "malformed"),
    "unknown field and signed": (add_field_and_sign, "malformed"),
}


async def test_fault_10_a_changed_job_is_refused_audited_and_without_effect(stage: Stage, kind: str) -> None:
    async with rogue_gateway(stage) as rogue:
        await stage.start_all()
        operator = Operator(stage)
        site = await operator.find("/sites", "domain", "ada.example")
        for number, (name, (tamper, code)) in enumerate(TAMPERINGS.items()):
            before = site_file(stage, "sim-1", "ada.example")

            change = partial(operator.move_site, site["id"], f"evil-{number}")
            job = await play_tampered(stage, rogue, tamper, change)

            assert [entry["code"] for entry in await read_audit(stage, job["id"])] == [code], name
            if code in TRUST_CODES:
                # A key that a node does not know may be news to it: the job itself is sent again, as it was asked for.
                assert job["state"] == "succeeded", name
            else:
                assert (job["state"], job["error"]["code"]) == ("refused", code), name
                # A session that ended in between brings the account's state again, as another job that nobody changed.
                assert site_file(stage, "sim-1", "ada.example") == before or await was_asked_again(stage, job), name

        await operator.move_site(site["id"], "good")
        await wait_until(lambda: "good" in site_file(stage, "sim-1", "ada.example"), what="an untouched job")
        await stage.settle()
        await check_invariants(stage)


async def was_asked_again(stage: Stage, job: dict[str, Any]) -> bool:
    """Whether a later job of the same subject was done."""
    jobs = (await stage.call("GET", "/jobs?limit=50"))["items"]
    return any(
        other["id"] > job["id"] and other["resource_key"] == job["resource_key"] and other["state"] == "succeeded"
        for other in jobs
    )


async def play_tampered(
    stage: Stage, rogue: RogueGateway, tamper: Callable[[OfferJob, Stage], Envelope], change: Callable[[], Any]
) -> Any:
    """Change the next job on its way; the job as the controller sees it in the end."""
    touched: list[str] = []

    def change_first(frame: Frame) -> Iterable[Frame]:
        if isinstance(frame, OfferJob) and not touched:
            touched.append(frame.job_id)
            return (msgspec.structs.replace(frame, envelope=tamper(frame, stage)),)
        return (frame,)

    rogue.down = change_first
    await change()
    await wait_until(lambda: bool(touched), what="a job to change")
    # A later number shows the node that this one is missing, so that what is sent again comes soon.
    await Operator(stage).ping("sim-1")
    return await stage.wait_job(touched[0])
