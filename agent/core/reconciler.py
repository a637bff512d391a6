"""Making a subject as it should be: observe, plan, journal, apply, verify, resource by resource.

A resource that fails is undone and parked, and the others go on. When the account itself fails, time is up or somebody
cancels, everything is undone. What cannot be undone runs last, after all else was verified and the outcome sealed.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import cast

import msgspec

from agent.contract.actions import AnyAction, PublishConfig, ReloadUnit
from agent.contract.module import Plan
from agent.core import faults
from agent.core.boundary import attempt, error_body
from agent.core.context import NodeContext
from agent.core.explanation import cut_diff, explain, list_reloads
from agent.core.planning import Target, find_missing_need, find_remaining_user
from agent.core.records import Applied, Deferred
from agent.core.sealing import finish, require_verified
from agent.core.transaction import Transaction, describe_step
from agent.core.watch import CancelledByRequestError, Watch
from agent.core.work import Work, judge
from agent.system.recording import Recorder, current_recorder, recording
from shared.errors import BugError, ConfigTestError, ConflictError
from shared.protocol.job import ErrorBody, JobResult, JobState, ResourceOutcome, ResourceReport
from shared.specs.base import Presence


class Convergence(msgspec.Struct, frozen=True, kw_only=True):
    """One request: these targets, for this subject."""

    subject: str
    targets: tuple[Target, ...]
    job_id: str | None = None
    """None: a repair by policy."""
    held: tuple[str, ...] = ()
    """Keys that the controller holds back; reported, left alone."""
    applied: Applied | None = None
    """What to remember once it is done; None keeps what is remembered (repair, dry run)."""
    generation: int = 0
    max_runtime_seconds: float
    shows_whole_files: bool = False
    """Diffs with the whole file around each change: whoever judges drift needs to see where a line stands."""


class _SubjectFailedError(Exception):
    """The account itself failed; nothing of this job can stay."""

    def __init__(self, key: str, error: Exception) -> None:
        super().__init__(key)
        self.key = key
        self.error = error


class Reconciler:
    """Keeps nothing between two calls."""

    def __init__(self, node: NodeContext) -> None:
        self._node = node

    async def converge(self, request: Convergence, *, watch: Watch) -> JobResult:
        """Make it so, and record what holds then together with the job's result.

        Raises:
            RollbackError: An undo failed; the transaction is broken and nothing was stored.
        """
        with recording() as recorder:
            return await self._converge(request, self._start(request, recorder), watch)

    async def _converge(self, request: Convergence, work: Work, watch: Watch) -> JobResult:
        transaction = Transaction(self._node, subject=request.subject, job_id=request.job_id)
        try:
            async with asyncio.timeout(request.max_runtime_seconds):
                await self._bring_all(request, work, transaction, watch)
        except (_SubjectFailedError, CancelledByRequestError, TimeoutError) as error:
            return await self._abort(request, work, transaction, error)
        reloads = list_reloads(work.actions, self._node.registry.config_trees)
        draft = work.draft(applied=request.applied, reloads=reloads)
        if draft.deferred:
            faults.at("transaction.before_seal")
            self._node.ledger.seal(transaction.number, draft)
            faults.at("transaction.after_seal")
        return await finish(self._node, transaction=transaction.number, subject=request.subject, draft=draft)

    async def preview(self, request: Convergence, *, watch: Watch) -> JobResult:
        """The same way without a single change: what would be done, and what would stand in the way."""
        work = self._start(request)
        async with asyncio.timeout(request.max_runtime_seconds):
            for number, target in enumerate(request.targets):
                watch.require_wanted()
                watch.tell(number, len(request.targets), f"planning {target.key}")
                await self._preview_one(request, work, target)
        reloads = list_reloads(work.actions, self._node.registry.config_trees)
        result = work.draft(applied=None, reloads=reloads).result
        state, error = judge(result.resources)
        return msgspec.structs.replace(result, state=state, error=error, finished_at=self._node.now())

    def _start(self, request: Convergence, recorder: Recorder | None = None) -> Work:
        work = Work(
            commands=recorder.runs if recorder is not None else [],
            job_id=request.job_id or "",
            generation=request.generation,
            started_at=self._node.now(),
            before=self._node.ledger.holdings(request.subject),
        )
        for key in request.held:
            work.reports.append(
                ResourceReport(key=key, outcome=ResourceOutcome.HELD, note="parked; waits for a retry or a discard")
            )
        return work

    # --- applying -----------------------------------------------------------------------------------------------------

    async def _bring_all(self, request: Convergence, work: Work, transaction: Transaction, watch: Watch) -> None:
        total = len(request.targets)
        for number, target in enumerate(request.targets):
            watch.require_wanted()
            watch.tell(number, total, target.key)
            if self._is_left_alone(request, work, target):
                continue

            def tell(action: AnyAction, number: int = number, target: Target = target) -> None:
                watch.require_wanted()
                watch.tell(number, total, f"{target.key}: {describe_step(action)}")

            await self._bring(request, work, transaction, target, tell)
        watch.require_wanted()

    async def _bring(
        self,
        request: Convergence,
        work: Work,
        transaction: Transaction,
        target: Target,
        tell: Callable[[AnyAction], None],
    ) -> None:
        """Make one resource as it should be, or undo it and park it."""
        changes_before = len(work.changes)
        actions_before = len(work.actions)
        if (recorder := current_recorder()) is not None:
            recorder.resource = target.key

        async def bring() -> None:
            plan = await self._plan(request, work, target)
            for action in typed_actions(plan):
                if not action.IS_IRREVERSIBLE:
                    tell(action)
                    await transaction.apply(target.key, action)
            await self._conclude(work, target, plan)

        failure = await attempt(bring())
        if failure is None:
            return
        if isinstance(failure, CancelledByRequestError):
            raise failure
        if target.is_essential:
            raise _SubjectFailedError(target.key, failure) from failure
        await transaction.unwind(target.key)
        attempted = cut_diff("".join(change.diff for change in work.changes[changes_before:]))
        del work.changes[changes_before:]
        del work.actions[actions_before:]
        work.park(target, error_body(failure), diff=attempted)

    async def _plan(self, request: Convergence, work: Work, target: Target) -> Plan:
        """Observe and plan one resource, and put it into words."""
        owner = self._node.ledger.find_owner(target.key, other_than=request.subject)
        if owner is not None and target.presence is not Presence.ABSENT:
            raise ConflictError(f"{target.key} belongs to {owner} on this node", code="resource_taken")
        converger = self._node.registry.require_converger(target.spec)
        facts = await converger.observe(target.spec, self._node.host)
        plan = converger.plan(target.spec, target.presence, facts)
        for action in typed_actions(plan):
            words = await explain(self._node.host, target.key, action, is_whole=request.shows_whole_files)
            work.add_change(words)
        work.actions.extend(typed_actions(plan))
        work.risks.extend(plan.risks)
        return plan

    async def _conclude(self, work: Work, target: Target, plan: Plan) -> None:
        """Verify a resource that is done; one with irreversible actions left is verified after them."""
        deferred = tuple(action for action in typed_actions(plan) if action.IS_IRREVERSIBLE)
        if deferred:
            work.deferred.append(Deferred(spec=target.spec, presence=target.presence, actions=deferred))
            return
        verification = await require_verified(self._node, target)
        note = plan.noop_reason or verification.note
        work.settle(target, has_changed=bool(plan.actions), note=note, verification=verification)
        faults.at("resource.after_verify")

    def _is_left_alone(self, request: Convergence, work: Work, target: Target) -> bool:
        """Whether a parked or held resource forbids touching this one; if so it is reported."""
        missing = find_missing_need(target, work.parked)
        if missing is not None:
            message = f"it needs {missing.key}, which could not be brought about"
            work.park(target, ErrorBody(code="dependency_parked", message=message))
            return True
        staying = [*request.held, *(parked.key for parked in work.parked)]
        user = find_remaining_user(target, [work.before[key].spec for key in staying if key in work.before])
        if user is not None:
            work.hold(target, f"{user.key} still uses it")
            return True
        return False

    # --- not applying -------------------------------------------------------------------------------------------------

    async def _preview_one(self, request: Convergence, work: Work, target: Target) -> None:
        if self._is_left_alone(request, work, target):
            return
        try:
            plan = await self._plan(request, work, target)
        except Exception as error:  # noqa: BLE001 - the executor's boundary: a bug in one resource is that one's
            work.park(target, error_body(error))
            return
        if not request.shows_whole_files and (refusal := await self._find_refusal(plan)) is not None:
            work.park(target, error_body(refusal))
            return
        outcome = ResourceOutcome.UNCHANGED
        if plan.actions:
            outcome = ResourceOutcome.REMOVED if target.presence is Presence.ABSENT else ResourceOutcome.CHANGED
        work.reports.append(ResourceReport(key=target.key, outcome=outcome, note=plan.noop_reason))

    async def _find_refusal(self, plan: Plan) -> Exception | None:
        """What a validator would say where that can be known: of configuration that needs nothing else of the plan."""
        actions = typed_actions(plan)
        if not actions or not all(isinstance(action, PublishConfig | ReloadUnit) for action in actions):
            return None
        for action in actions:
            if isinstance(action, PublishConfig) and (words := await self._node.host.find_refusal(action)) is not None:
                return ConfigTestError(words, context={"tree": action.tree})
        return None

    async def _abort(self, request: Convergence, work: Work, transaction: Transaction, error: Exception) -> JobResult:
        """Undo everything and say why."""
        await transaction.unwind()
        faults.at("transaction.after_unwind")
        state, body = _explain_abort(request, error)
        result = JobResult(
            job_id=request.job_id or "",
            state=state,
            generation=request.generation,
            changes=tuple(work.changes),
            resources=tuple(work.reports),
            commands=tuple(work.commands) or msgspec.UNSET,
            error=body,
            is_rolled_back=True,
            started_at=work.started_at,
            finished_at=self._node.now(),
        )
        with self._node.ledger.durable():
            self._node.ledger.forget(transaction.number)
            self._node.journal.finish_job(result)
        faults.at("transaction.after_abort")
        return result


def typed_actions(plan: Plan) -> tuple[AnyAction, ...]:
    """The plan's actions as the closed union that hosts and the journal know; every Action is a member of it."""
    return cast("tuple[AnyAction, ...]", plan.actions)


def _explain_abort(request: Convergence, error: Exception) -> tuple[JobState, ErrorBody]:
    if isinstance(error, CancelledByRequestError):
        return JobState.CANCELLED, error_body(error)
    if isinstance(error, TimeoutError):
        message = f"not finished within {request.max_runtime_seconds:.0f} s; everything was undone"
        return JobState.FAILED, ErrorBody(code="timeout", message=message)
    if isinstance(error, _SubjectFailedError):
        body = error_body(error.error)
        return JobState.FAILED, msgspec.structs.replace(body, context={**body.context, "resource": error.key})
    raise BugError("an abort without a reason") from error
