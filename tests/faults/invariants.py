"""I1 to I7 (docs/faults.md): what must hold once a fault is healed and nothing is going on any more."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import select

from controller.core.accounts.models import Account
from controller.fleet.models import Node
from controller.jobs.models import Job, JobTransition, NodeInbox
from controller.jobs.states import FINAL, PRESUMED, JobState
from controller.modules.web.models import Site
from shared.protocol.job import JobResult, Semantics, decode_job
from shared.protocol.job import JobState as NodeJobState
from tests.faults.node_process import DurableState, host_file, read_durable_state
from tests.faults.stage import SimNode, Stage

MIB = 1024**2
CONTROLLER_BYTES = 400 * MIB
NODE_BYTES = 200 * MIB
JOURNAL_BYTES = 32 * MIB
SPOOL_BYTES = 16 * MIB
TRANSITIONS_MAX = 40
SITES_DIR = "/etc/nginx/wcp360/sites/"
_ANSWERS = {
    NodeJobState.SUCCEEDED: JobState.SUCCEEDED,
    NodeJobState.FAILED: JobState.FAILED,
    NodeJobState.CANCELLED: JobState.CANCELLED,
    NodeJobState.INDETERMINATE: JobState.INDETERMINATE,
}


@dataclass
class Truth:
    """Everything that anybody remembers."""

    jobs: dict[str, Job]
    paths: dict[str, list[JobState]]
    accounts: list[Account]
    nodes: dict[str, Node]
    sites: list[Site]
    inboxes: dict[str, NodeInbox]
    invented: frozenset[str]
    """Jobs that the test itself signed: the controller knows nothing of them."""
    faults: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.faults.append(what)


async def check_invariants(stage: Stage, *, invented: Iterable[str] = ()) -> None:
    """Everything at rest is as it must be.

    Raises:
        AssertionError: With everything that is not.
    """
    truth = await _read(stage, frozenset(invented))
    _check_ends(truth, stage.accepted)
    for node in stage.nodes.values():
        host = read_durable_state(host_file(node.root))
        assert host is not None, f"{node.name} has no host"
        _check_once(truth, node, host)
        _check_signed(truth, node)
        _check_events(truth, node)
        _check_tenants(truth, node, host)
        _check_desired(truth, node, host)
        _check_node_bounds(truth, node)
    for controller in stage.controllers:
        if controller.status is None:
            truth.require(controller.resident_bytes < CONTROLLER_BYTES, "I7: the controller's memory")
    assert truth.faults == [], "\n".join([*truth.faults, stage.describe()])


async def _read(stage: Stage, invented: frozenset[str]) -> Truth:
    async with stage.database.read() as session:

        async def rows(kind: type[Any]) -> list[Any]:
            return list((await session.execute(select(kind).order_by(kind.id))).scalars())

        paths: dict[str, list[JobState]] = {}
        for row in await rows(JobTransition):
            paths.setdefault(row.job_id, []).append(row.to_state)
        return Truth(
            jobs={job.id: job for job in await rows(Job)},
            paths=paths,
            accounts=[account for account in await rows(Account) if account.deleted_at is None],
            nodes={node.id: node for node in await rows(Node)},
            sites=[site for site in await rows(Site) if site.deleted_at is None],
            inboxes={inbox.id: inbox for inbox in await rows(NodeInbox)},
            invented=invented,
        )


def _check_ends(truth: Truth, accepted: Iterable[str]) -> None:
    for job_id in accepted:
        truth.require(job_id in truth.jobs, f"I1: the accepted job {job_id} is gone")
    for job in truth.jobs.values():
        ends = [state for state in truth.paths[job.id] if state in FINAL - PRESUMED - {JobState.DISCARDED}]
        truth.require(job.state in FINAL, f"I1: {job.label} is {job.state}")
        truth.require(len(ends) <= 1, f"I1: {job.label} ended {len(ends)} times: {truth.paths[job.id]}")
        truth.require(len(truth.paths[job.id]) <= TRANSITIONS_MAX, f"I7: {job.label} took {truth.paths[job.id]}")


def _check_once(truth: Truth, node: SimNode, host: DurableState) -> None:
    for digest, count in host.counts.items():
        truth.require(count <= 1, f"I2: {host.labels[digest]} took effect {count} times on {node.name}")
    for job_id, payload, attempts in node.journal("SELECT job_id, payload, attempts FROM jobs"):
        is_once = decode_job(payload).semantics is Semantics.ONCE
        truth.require(not is_once or attempts <= 1, f"I2: {job_id} may run once and ran {attempts} times")


def _check_signed(truth: Truth, node: SimNode) -> None:
    by_delivery = {job.delivery_id: job for job in truth.jobs.values()}
    is_retried = any(job.attempts > 1 for job in truth.jobs.values())
    gen = truth.nodes[node.node_id].node_gen
    for job_id, payload in node.journal("SELECT job_id, payload FROM jobs WHERE state <> 'refused'"):
        job, row = decode_job(payload), by_delivery.get(job_id)
        is_own = (job.node_id, job.node_gen) == (node.node_id, gen)
        truth.require(is_own, f"I4: {node.name} ran a job for {job.node_id}, enrolment {job.node_gen}")
        if row is None:
            truth.require(is_retried or job_id in truth.invented, f"I4: nobody asked for {job_id}")
        else:
            truth.require(row.payload == payload, f"I4: {row.label} is not what was signed")


def _check_events(truth: Truth, node: SimNode) -> None:
    (acked,) = node.spool("SELECT value FROM counter WHERE name = 'acked'")[0]
    inbox = truth.inboxes.get(node.node_id)
    truth.require(inbox is not None and acked <= inbox.last_number, f"I5: {node.name} forgot what was never committed")
    waiting = {subject for (subject,) in node.spool("SELECT subject FROM event WHERE kind = 'result'")}
    by_delivery = {job.delivery_id: job for job in truth.jobs.values()}
    for job_id, raw in node.journal("SELECT job_id, result FROM jobs WHERE is_stored AND state <> 'refused'"):
        row = by_delivery.get(job_id)
        if row is None or job_id in waiting:
            continue
        said = msgspec.msgpack.decode(raw, type=JobResult).state
        is_there = row.state in (_ANSWERS[said], JobState.DISCARDED)
        truth.require(is_there, f"I5: {row.label} is {row.state}, the node said {said}")


def _check_tenants(truth: Truth, node: SimNode, host: DurableState) -> None:
    own = {account.name: account for account in truth.accounts if account.node_id == node.node_id}
    names = {user.name for user in host.host.users.values() if 20_000 <= user.uid < 60_000}
    truth.require(names <= own.keys(), f"I6: {node.name} has {names - own.keys()}")
    for name in names & own.keys():
        truth.require(host.host.users[name].uid == own[name].uid, f"I6: {name} has another's uid")
    ids = {account.id for account in own.values()}
    domains = {site.domain for site in truth.sites if site.account_id in ids}
    files = {
        path.removeprefix(SITES_DIR).removesuffix(".conf") for path in host.host.paths if path.startswith(SITES_DIR)
    }
    truth.require(files <= domains, f"I6: {node.name} serves {files - domains}")


def _check_desired(truth: Truth, node: SimNode, host: DurableState) -> None:
    row = truth.nodes[node.node_id]
    truth.require(row.observed_generation == row.desired_generation, f"I3: {node.name} is behind")
    applied = dict(node.journal("SELECT subject, generation FROM applied"))
    for account in truth.accounts:
        if account.node_id != node.node_id:
            continue
        seen = (account.observed_generation, applied.get(f"account/{account.name}"))
        wanted = (account.desired_generation, account.desired_generation)
        truth.require(seen == wanted, f"I3: {account.name} is at {seen} instead of {wanted}")
        for site in truth.sites:
            if site.account_id == account.id:
                found = host.host.paths.get(f"{SITES_DIR}{site.domain}.conf")
                is_there = found is not None and f'/{site.document_root}";' in found.content
                truth.require(is_there, f"I3: {site.domain} is not as it was asked for on {node.name}")


def _check_node_bounds(truth: Truth, node: SimNode) -> None:
    if node.process is not None and node.process.status is None:
        truth.require(node.process.resident_bytes < NODE_BYTES, f"I7: the memory of {node.name}")
    for path, limit in (
        (node.paths.executor_state_dir / "journal.db", JOURNAL_BYTES),
        (node.paths.spool_db, SPOOL_BYTES),
    ):
        truth.require(_size(path) < limit, f"I7: {path.name} of {node.name} has {_size(path)} bytes")
    seqs = Counter(seq for (seq,) in node.journal("SELECT seq FROM jobs"))
    truth.require(all(count == 1 for count in seqs.values()), f"I4: {node.name} took a number twice")


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in (path, path.with_name(path.name + "-wal")) if part.exists())
