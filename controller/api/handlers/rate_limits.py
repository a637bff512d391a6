"""How often the API may be asked, as an administrator sets it."""

from __future__ import annotations

from litestar import Response, get, patch
from litestar.di import NamedDependency
from litestar.params import JSONBody

from controller.api.rate_gate import RateGate
from controller.core.context import Actor
from controller.core.http import DryRun, answer_done
from controller.core.operations import Operations
from controller.core.rate_limits.policy import RateLimits, RateLimitsUpdate, show_limits, update_limits

_TAGS = ["security"]


@get("/rate-limits", operation_id="show-rate-limits", tags=_TAGS, summary="Show how often the API may be asked")
async def show_rate_limits(
    operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> RateLimits:
    """Show the rates of addresses, users, tokens, tenants and tiers of packages."""
    return await operations.read(actor, request_id, show_limits)


@patch("/rate-limits", operation_id="update-rate-limits", tags=_TAGS, summary="Change how often the API may be asked")
async def update_rate_limits(
    *,
    data: JSONBody[RateLimitsUpdate],
    rate_gate: NamedDependency[RateGate],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[RateLimits]:
    """Change the rates that are given; all processes follow within seconds."""
    outcome = await operations.change(actor, request_id, lambda ctx: update_limits(ctx, data), is_dry_run=dry_run)
    rate_gate.book.forget()
    return answer_done(outcome, status=200)


ROUTES = (show_rate_limits, update_rate_limits)
