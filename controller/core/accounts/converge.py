"""One step forward: the next generation of an account, as one job for its node."""

from __future__ import annotations

from controller.core.accounts.manifest import compile_account
from controller.core.accounts.models import Account
from controller.core.operations import FleetContext
from controller.jobs.queue import JobRequest
from shared.errors import QuotaExceededError
from shared.protocol.envelope import MAX_PAYLOAD_BYTES
from shared.protocol.job import ACTION_CONVERGE
from shared.specs.manifest import encode_manifest

_ENVELOPE_ROOM = 64 * 1024
"""Bytes of a job beside its manifest, generously."""


async def converge_account(ctx: FleetContext, account: Account, *, reason: str) -> str:
    """Take everything that was written so far in this transaction as the account's next generation.

    Args:
        ctx: The change that it belongs to.
        account: Its `desired_generation` grows by one.
        reason: For people reading the job list, for example "site example.com".

    Returns:
        Id of the job.

    Raises:
        QuotaExceededError: The account has more than fits into one manifest.
    """
    account.desired_generation += 1
    account.updated_at = ctx.now
    await ctx.session.flush()
    policy = await ctx.fleet.drift_policy(ctx.session, account.home_node_id)
    manifest = await compile_account(ctx.session, ctx.registry, account, drift_policy=policy)
    args = encode_manifest(manifest)
    if len(args) > MAX_PAYLOAD_BYTES - _ENVELOPE_ROOM:
        raise QuotaExceededError(
            f"all that the account {account.name!r} has must fit into {MAX_PAYLOAD_BYTES // 1024 // 1024} MiB",
            hint="Make the sites' extra directives shorter, or spread the sites over two accounts.",
        )
    request = JobRequest(
        node_id=account.home_node_id,
        action=ACTION_CONVERGE,
        args=args,
        resource_key=account.subject,
        generation=manifest.generation,
        actor=ctx.actor.reference,
        request_id=ctx.request_id[:64],
        label=f"{account.name}: {reason} (generation {manifest.generation})",
        account_id=account.id,
    )
    return await ctx.ask(request)
