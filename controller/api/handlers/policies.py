"""What an administrator decides for the whole platform, over HTTP."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any

from litestar import Request, Response, get, patch, post
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter

from controller.api.guards import require_recent_proof
from controller.core.auth.service import Authenticator
from controller.core.context import Actor
from controller.core.http import DRY_RUN_RESPONSES, DryRun, answer_done
from controller.core.operations import Operations
from controller.core.policies import service
from controller.core.policies.registry import KINDS, PlatformPoliciesUpdate
from controller.core.policies.service import PolicyList, PolicyView

_TAGS = ["policies"]

PolicyName = Annotated[str, PathParameter(description="Name of the policy.", max_length=80)]


@get("/policies", operation_id="list-policies", tags=_TAGS, summary="List the platform's policies")
async def list_policies(
    operations: NamedDependency[Operations], actor: NamedDependency[Actor], request_id: NamedDependency[str]
) -> PolicyList:
    """Show what holds for everybody, with ranges and defaults, and who changed what last."""
    return await operations.read(actor, request_id, service.list_policies)


@get("/policies/{policy:str}", operation_id="show-policy", tags=_TAGS, summary="Show a policy")
async def show_policy(
    policy: PolicyName,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
) -> PolicyView:
    """Show one policy; its whole story is `list-audit` with target policy/NAME."""
    return await operations.read(actor, request_id, lambda ctx: service.show_policy(ctx, policy))


@patch(
    "/policies",
    operation_id="update-policies",
    tags=_TAGS,
    responses=DRY_RUN_RESPONSES,
    summary="Change the platform's policies",
)
async def update_policies(
    *,
    data: JSONBody[PlatformPoliciesUpdate],
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PolicyList]:
    """Change those that are given, all or none of them; all processes follow within seconds."""
    _require_proof(request, service.given_of(data), is_dry_run=dry_run)
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.update_policies(ctx, data), is_dry_run=dry_run
    )
    authenticator.rules.forget()
    return answer_done(outcome, status=200)


@post(
    "/policies/{policy:str}/reset",
    operation_id="reset-policy",
    tags=_TAGS,
    status_code=200,
    responses=DRY_RUN_RESPONSES,
    summary="Let a policy's default hold again",
)
async def reset_policy(
    *,
    policy: PolicyName,
    request: Request[Any, Any, Any],
    authenticator: NamedDependency[Authenticator],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[PolicyView]:
    """Forget what was decided about one policy."""
    _require_proof(request, (policy,), is_dry_run=dry_run)
    outcome = await operations.change(
        actor, request_id, lambda ctx: service.reset_policy(ctx, policy), is_dry_run=dry_run
    )
    authenticator.rules.forget()
    return answer_done(outcome, status=200)


def _require_proof(request: Request[Any, Any, Any], names: Collection[str], *, is_dry_run: bool) -> None:
    """A person proves who they are for what makes it easier to become somebody else, as for `STEP_UP_ACTS`."""
    if not is_dry_run and any(name in KINDS and KINDS[name].is_sensitive for name in names):
        require_recent_proof(request)


ROUTES = (list_policies, show_policy, update_policies, reset_policy)
