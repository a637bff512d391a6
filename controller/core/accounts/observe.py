"""What a node said about an account, written into the observed columns. Never touches what is wanted.

The one exception is parking, which is both: a resource that failed stays out of later generations until somebody
retries it, and only the node can say that it failed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.deletion import certify, finish_deletion
from controller.core.accounts.models import Account, AccountProof, ObservedStatus
from controller.db.base import utc_now
from controller.jobs.models import Job
from shared.protocol.job import ACTION_CONVERGE, JobResult, JobState, Proof, ResourceOutcome, ResourceReport
from shared.specs.base import Presence
from shared.specs.manifest import AnySpec, decode_manifest
from shared.types.names import ResourceKey


@dataclass(frozen=True, slots=True)
class Observation:
    """A node's word about the resources of one kind of one account."""

    account_id: str
    generation: int
    specs: Mapping[ResourceKey, AnySpec]
    """What the node was told to have, so exactly what is in force where nothing else is reported."""
    reports: Mapping[ResourceKey, ResourceReport]
    is_applied: bool
    """True: the whole generation is in force, but for what the reports say is parked or held."""
    now: datetime


class ResourceObserver(Protocol):
    """One per module that has rows: takes in what became of its resources."""

    @property
    def prefix(self) -> str:
        """Kind of its resource keys with the slash, for example `site/`."""
        ...

    async def observe(self, session: AsyncSession, seen: Observation) -> None: ...

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        """The node has nothing of the account any more: so must the module."""
        ...


class AccountObserver:
    """Bootstrap builds one and registers it with the job engine for results of mode apply."""

    def __init__(self, observers: Sequence[ResourceObserver] = (), clock: Callable[[], datetime] = utc_now) -> None:
        self._observers = tuple(observers)
        self._clock = clock

    async def __call__(self, session: AsyncSession, job: Job, result: JobResult) -> None:
        """Take in one result, in the transaction that stores it. Taking it in twice is taking it in once.

        Other jobs than an account's converge are none of its business; neither are accounts that are unknown, gone, or
        on another node by now.
        """
        if job.action != ACTION_CONVERGE or not job.resource_key.startswith("account/"):
            return
        account = await _find_account(session, job)
        if account is None or job.generation < account.observed_generation:
            return
        await self._take_in(session, account, job, result)

    async def _take_in(self, session: AsyncSession, account: Account, job: Job, result: JobResult) -> None:
        now, manifest = self._clock(), decode_manifest(job.args)
        is_applied = is_in_force(result)
        _note_outcome(account, manifest.generation, result, now)
        await _store_proofs(session, account, manifest.generation, result)
        is_leaving = manifest.presence is Presence.ABSENT
        specs = {spec.key: spec for spec in manifest.specs} if not is_leaving else {}
        for observer in self._observers:
            reports = {ResourceKey(r.key): r for r in result.resources if r.key.startswith(observer.prefix)}
            seen = Observation(account.id, manifest.generation, specs, reports, is_applied, now)
            await observer.observe(session, seen)
        is_last_word = is_leaving and manifest.generation == account.desired_generation
        if is_last_word and is_applied and not _has_parked(result):
            await certify(session, account, [spec.key for spec in manifest.specs], job, now)
            for observer in self._observers:
                await observer.forget(session, account.id, now)
            await finish_deletion(session, account, now)
        await session.flush()


def is_in_force(result: JobResult) -> bool:
    """Whether the node has the generation now, but for what the reports call parked or held.

    A job whose only fault are parked resources ends as failed, and everything else of it was applied.
    """
    is_only_parked = result.state is JobState.FAILED and not result.is_rolled_back and _has_parked(result)
    return result.state is JobState.SUCCEEDED or is_only_parked


async def _find_account(session: AsyncSession, job: Job) -> Account | None:
    """By id: a later account may have the same name."""
    statement = select(Account).where(
        Account.id == job.account_id, Account.node_id == job.node_id, Account.deleted_at.is_(None)
    )
    statement = statement.with_for_update().execution_options(populate_existing=True)
    return (await session.scalars(statement)).one_or_none()


def _has_parked(result: JobResult) -> bool:
    return any(report.outcome is ResourceOutcome.PARKED for report in result.resources)


def _note_outcome(account: Account, generation: int, result: JobResult, now: datetime) -> None:
    account.observed_at = now
    is_good = result.state is JobState.SUCCEEDED
    account.observed_code = None if is_good else (result.error.code if result.error else result.state.value)[:64]
    account.observed_message = result.error.message if result.error else None
    if not is_in_force(result):
        account.observed_status = ObservedStatus.FAILED
        return
    is_partial = any(r.outcome in (ResourceOutcome.PARKED, ResourceOutcome.HELD) for r in result.resources)
    account.observed_generation = generation
    account.observed_status = ObservedStatus.PARKED if is_partial else ObservedStatus.OK


async def _store_proofs(session: AsyncSession, account: Account, generation: int, result: JobResult) -> None:
    """Keep the latest reading of each limit; readings of what the account no longer has go."""
    statement = select(AccountProof).where(AccountProof.account_id == account.id)
    known = {(row.resource, row.limit_name): row for row in await session.scalars(statement)}
    for proof in result.proofs:
        row = known.pop((proof.resource, proof.limit), None)
        if row is None:
            row = AccountProof(account_id=account.id, resource=proof.resource, limit_name=proof.limit)
            session.add(row)
        _fill_proof(row, proof, generation)
    present = {report.key for report in result.resources if report.outcome is not ResourceOutcome.REMOVED}
    for (resource, _), row in known.items():
        if is_in_force(result) and resource not in present:
            await session.delete(row)


def _fill_proof(row: AccountProof, proof: Proof, generation: int) -> None:
    row.wanted, row.enforced, row.source, row.generation = proof.wanted, proof.enforced, proof.source[:500], generation
    row.read_at = datetime.fromtimestamp(proof.read_at, UTC)
