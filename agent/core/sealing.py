"""The end of a convergence, also of one that a crash interrupted after its point of no return."""

from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.actions import AnyAction
from agent.contract.module import Verification
from agent.core import faults
from agent.core.boundary import attempt, error_body
from agent.core.context import NodeContext
from agent.core.planning import Target
from agent.core.records import Deferred, Draft, Holding
from agent.core.transaction import describe_step
from agent.core.work import judge, settled_report
from shared.errors import ApplyError, VerifyError
from shared.protocol.job import JobResult, Proof, ResourceOutcome, ResourceReport
from shared.specs.base import Presence

IRREVERSIBLE_SECONDS: Final = 1800.0
"""Longest time for one action that cannot be undone (a large home takes a while)."""


async def finish(node: NodeContext, *, transaction: int, subject: str, draft: Draft) -> JobResult:
    """Run what cannot be undone, then commit what holds together with the job's result."""
    for deferred in draft.deferred:
        draft = await _finish_deferred(node, draft, deferred)
    state, error = judge(draft.result.resources)
    result = msgspec.structs.replace(draft.result, state=state, error=error, finished_at=node.now())
    draft = msgspec.structs.replace(draft, result=result)
    faults.at("transaction.before_commit")
    with node.ledger.durable():
        node.ledger.commit(transaction, draft, subject=subject)
        node.journal.finish_job(result)
    faults.at("transaction.after_commit")
    return result


async def _finish_deferred(node: NodeContext, draft: Draft, deferred: Deferred) -> Draft:
    """The draft with this resource settled; one that fails half way stays on the books, so that it is tried again."""
    target = Target(spec=deferred.spec, presence=deferred.presence)
    verifications: list[Verification] = []
    failure = await attempt(_run_deferred(node, target, deferred.actions, verifications))
    if failure is not None:
        report = ResourceReport(key=target.key, outcome=ResourceOutcome.PARKED, error=error_body(failure))
        return _with_report(draft, report)
    report = settled_report(target, has_changed=True, note=verifications[0].note)
    draft = _with_report(draft, report, proofs=verifications[0].proofs)
    if target.presence is Presence.ABSENT:
        return msgspec.structs.replace(draft, dropped=(*draft.dropped, target.key))
    holding = Holding(spec=target.spec, presence=target.presence)
    return msgspec.structs.replace(draft, kept=(*draft.kept, holding))


async def _run_deferred(
    node: NodeContext, target: Target, actions: tuple[AnyAction, ...], verifications: list[Verification]
) -> None:
    for action in actions:
        faults.at("irreversible.before_apply")
        failure = await attempt(node.host.apply(action), timeout_seconds=IRREVERSIBLE_SECONDS)
        if failure is not None:
            raise ApplyError(str(failure), step=describe_step(action), is_rolled_back=False) from failure
        faults.at("irreversible.after_apply")
    verifications.append(await require_verified(node, target))


def _with_report(draft: Draft, report: ResourceReport, *, proofs: tuple[Proof, ...] = ()) -> Draft:
    result = msgspec.structs.replace(
        draft.result,
        resources=(*draft.result.resources, report),
        proofs=(*draft.result.proofs, *proofs),
    )
    return msgspec.structs.replace(draft, result=result)


async def require_verified(node: NodeContext, target: Target) -> Verification:
    """Judge what the user was promised.

    Raises:
        VerifyError: It does not hold.
    """
    converger = node.registry.require_converger(target.spec)
    verification = await converger.verify(target.spec, target.presence, node.host)
    if not verification.is_good:
        raise VerifyError(verification.note)
    return verification
