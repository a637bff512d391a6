"""Enrolment over HTTP: tokens for administrators, and the four public addresses that a bare machine talks to."""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

import msgspec
from litestar import Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import JSONBody
from msgspec import Meta
from sqlalchemy import select

from controller.api.guards import DURING_MAINTENANCE, PUBLIC
from controller.api.rate_limit import RateLimiter
from controller.core.context import Actor, Role
from controller.core.http import DRY_RUN_RESPONSES, Cursor, DryRun, Limit, PathId, answer_done
from controller.core.operations import FleetContext, Operations, Outcome
from controller.core.paging import DEFAULT_LIMIT, PageRequest, fetch_page
from controller.core.rate_limits.counters import Counters
from controller.fleet.enrolment.tokens import MAX_TTL_MINUTES, TokenParams
from controller.fleet.fleet import Fleet
from controller.fleet.models import ApprovalMode, EnrolmentTokenRow
from controller.fleet.nodes.views import EnrolmentTokenPage, EnrolmentTokenView, render_token
from shared.errors import FleetError
from shared.protocol.enrolment import EnrolmentReply, EnrolmentRequest
from shared.protocol.renewal import TRUST_BUNDLE_PATH, RenewalReply, RenewalRequest

_TAGS = ["enrolment"]
_BURST = 5


class EnrolmentTokenCreate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A new token for one machine."""

    name: Annotated[str, Meta(max_length=63, description="Name of the node; empty: its host name.")] = ""
    approval: Annotated[
        ApprovalMode,
        Meta(
            description="auto: the token is enough. manual: somebody compares six words first. "
            "prestaged: only the machine whose request has the given hash."
        ),
    ] = ApprovalMode.AUTO
    csr_hash: Annotated[
        str, Meta(max_length=64, description="prestaged: what `wcp-agent enrol --prepare` shows on the machine.")
    ] = ""
    ttl_minutes: Annotated[int, Meta(ge=1, le=MAX_TTL_MINUTES)] = 30
    allowed_networks: Annotated[
        list[str], Meta(max_length=32, description="Where it may be used from; empty: everywhere.")
    ] = msgspec.field(default_factory=list)
    roles: Annotated[list[str], Meta(max_length=16, examples=[["web"]])] = msgspec.field(
        default_factory=lambda: ["web"]
    )


class EnrolmentTokenSecret(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just made; its secret is shown this once."""

    id: str
    token: Annotated[str, Meta(description="Shown once; nobody can read it again.")]
    command: Annotated[str, Meta(description="The whole line to paste on the machine, as root.")]
    expires_at: Any
    resource: EnrolmentTokenView


@get("/enrolment-tokens", operation_id="list-enrolment-tokens", tags=_TAGS, summary="List enrolment tokens")
async def list_enrolment_tokens(
    *,
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    limit: Limit = DEFAULT_LIMIT,
    cursor: Cursor = None,
) -> EnrolmentTokenPage:
    """Show the tokens, used and expired ones too, newest first."""

    async def query(ctx: FleetContext) -> EnrolmentTokenPage:
        ctx.actor.require("enrolment", "read")
        page = PageRequest(limit=limit, cursor=cursor)
        found = await fetch_page(ctx.session, select(EnrolmentTokenRow), page)
        items = tuple(render_token(row, now=ctx.now) for row in found.rows)
        return EnrolmentTokenPage(items=items, next_cursor=found.next_cursor)

    return await operations.read(actor, request_id, query)


@post(
    "/enrolment-tokens",
    operation_id="create-enrolment-token",
    tags=_TAGS,
    status_code=201,
    responses=DRY_RUN_RESPONSES,
    summary="Create an enrolment token",
)
async def create_enrolment_token(
    *,
    data: JSONBody[EnrolmentTokenCreate],
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[EnrolmentTokenSecret]:
    """Make a token for one machine, with the line that turns it into a node."""
    params = TokenParams(
        name=data.name,
        approval=data.approval,
        csr_hash=data.csr_hash,
        ttl_minutes=data.ttl_minutes,
        allowed_networks=tuple(data.allowed_networks),
        roles=tuple(data.roles),
    )

    async def use_case(ctx: FleetContext) -> EnrolmentTokenSecret:
        made = await fleet.create_token(ctx, params)
        return EnrolmentTokenSecret(
            id=made.row.id,
            token=made.token,
            command=fleet.install_files.render_command(made.token),
            expires_at=made.row.expires_at,
            resource=render_token(made.row, now=ctx.now),
        )

    return answer_done(await operations.change(actor, request_id, use_case, is_dry_run=dry_run), status=201)


@delete(
    "/enrolment-tokens/{token_id:str}",
    operation_id="delete-enrolment-token",
    tags=_TAGS,
    status_code=204,
    responses=DRY_RUN_RESPONSES,
    summary="Delete an enrolment token",
)
async def delete_enrolment_token(
    *,
    token_id: PathId,
    fleet: NamedDependency[Fleet],
    operations: NamedDependency[Operations],
    actor: NamedDependency[Actor],
    request_id: NamedDependency[str],
    dry_run: DryRun = False,
) -> Response[None]:
    """Make a token worthless; a node that it made stays."""
    outcome = await operations.change(
        actor, request_id, lambda ctx: fleet.delete_token(ctx, token_id), is_dry_run=dry_run
    )
    return answer_done(outcome, status=204)


@post("/enrol", operation_id="enrol", tags=_TAGS, status_code=200, opt={PUBLIC: True}, summary="Enrol a machine")
async def enrol(
    *,
    data: JSONBody[EnrolmentRequest],
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    enrol_limiter: NamedDependency[RateLimiter],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> EnrolmentReply:
    """Answer a machine that shows a token: its certificate and what it has to trust, or that it has to wait."""
    address = request.client.host if request.client is not None else ""
    await enrol_limiter.require(address)
    machine = Actor(kind="enrolment", id=data.token[3:19], name="a machine", role=Role.CLIENT, scopes=frozenset())
    outcome: Outcome[EnrolmentReply | FleetError] = await operations.change(
        machine, request_id, lambda ctx: fleet.enrolments.enrol(ctx, data, address=address)
    )
    if isinstance(outcome.resource, FleetError):
        raise outcome.resource
    return outcome.resource


@post(
    "/enrol/renew",
    operation_id="renew-certificate",
    tags=_TAGS,
    status_code=200,
    opt={PUBLIC: True, DURING_MAINTENANCE: True},
    summary="Renew a node's certificate",
)
async def renew_certificate(
    *,
    data: JSONBody[RenewalRequest],
    request: Request[Any, Any, Any],
    fleet: NamedDependency[Fleet],
    renewal_limits: NamedDependency[RenewalLimits],
    operations: NamedDependency[Operations],
    request_id: NamedDependency[str],
) -> RenewalReply:
    """Give a node its next certificate; the signature by its present key is the proof, unless it ended long ago."""
    address = request.client.host if request.client is not None else ""
    await renewal_limits.require(address, data.certificate_pem)
    machine = Actor(kind="enrolment", id="renewal", name="a node", role=Role.CLIENT, scopes=frozenset())
    outcome: Outcome[RenewalReply | FleetError] = await operations.change(
        machine, request_id, lambda ctx: fleet.renew_certificate(ctx, data, address=address)
    )
    if isinstance(outcome.resource, FleetError):
        raise outcome.resource
    return outcome.resource


@get(
    "/install.sh",
    operation_id="fetch-install-script",
    tags=_TAGS,
    opt={PUBLIC: True},
    media_type="text/x-shellscript",
    sync_to_thread=True,
    summary="Fetch the install script",
)
def fetch_install_script(*, fleet: NamedDependency[Fleet]) -> str:
    """The script that the pasted line runs; it holds no secret."""
    return fleet.install_files.render_script()


@get(
    "/bundle/agent.tar.gz",
    operation_id="fetch-agent-bundle",
    tags=_TAGS,
    opt={PUBLIC: True},
    media_type="application/gzip",
    sync_to_thread=True,
    summary="Fetch the agent's bundle",
)
def fetch_agent_bundle(*, fleet: NamedDependency[Fleet]) -> bytes:
    """Everything that a node runs, as one archive; the script knows its hash."""
    return fleet.install_files.read_bundle()


@get(
    "/ca.pem",
    operation_id="fetch-authority",
    tags=_TAGS,
    opt={PUBLIC: True},
    media_type="application/x-pem-file",
    summary="Fetch the authority's certificate",
)
async def fetch_authority(*, fleet: NamedDependency[Fleet]) -> str:
    """The fleet's own authority, both while one replaces the other; compare with a pin before believing it."""
    return await fleet.read_ca_pem()


@get(
    TRUST_BUNDLE_PATH,
    operation_id="fetch-trust-bundle",
    tags=_TAGS,
    opt={PUBLIC: True},
    media_type="application/octet-stream",
    summary="Fetch the trust bundle",
)
async def fetch_trust_bundle(*, fleet: NamedDependency[Fleet]) -> bytes:
    """The newest trust bundle, signed by the root key: for nodes that slept through a change of the authority."""
    return msgspec.msgpack.encode((await fleet.read_trust())[1])


def make_enrol_limiter(counters: Counters | None = None) -> RateLimiter:
    """One attempt a second for each address, five at once: a machine that waits for approval asks every 5 s."""
    return RateLimiter("enrol", burst=_BURST, seconds_per_attempt=1.0, counters=counters)


class RenewalLimits:
    """A fleet behind one address renews within minutes when its authority changes; one node asks a few times."""

    def __init__(self, counters: Counters | None = None) -> None:
        self._addresses = RateLimiter("renew-address", burst=500, seconds_per_attempt=0.02, counters=counters)
        self._certificates = RateLimiter("renew-certificate", burst=5, seconds_per_attempt=5.0, counters=counters)

    async def require(self, address: str, certificate_pem: str) -> None:
        """Count one attempt of this address and of this certificate.

        Raises:
            RateLimitedError: Too many of either.
        """
        await self._addresses.require(address)
        await self._certificates.require(hashlib.sha256(certificate_pem.encode()).hexdigest())


ROUTES = (list_enrolment_tokens, create_enrolment_token, delete_enrolment_token, enrol, renew_certificate)
"""Below /api/v1."""
ROOT_ROUTES = (fetch_install_script, fetch_agent_bundle, fetch_authority, fetch_trust_bundle)
"""At the root."""
