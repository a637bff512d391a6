"""Enrolment tokens: what an administrator pastes on a machine that shall become a node."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
import secrets
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec
from sqlalchemy import delete, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.identity.authorities import spki_pin
from controller.fleet.identity.trust import list_trusted_authorities
from controller.fleet.limits import FAILURES_MAX
from controller.fleet.models import ApprovalMode, EnrolmentTokenRow
from controller.fleet.nodes.manifest import require_roles
from controller.fleet.nodes.names import require_node_name
from controller.fleet.ports import ChangeNote, FleetOp, Recorder
from shared.errors import FleetError, ForbiddenError, InvalidInputError, NotFoundError, UnauthenticatedError
from shared.protocol.enrolment import EnrolmentToken

MAX_TTL_MINUTES: Final = 7 * 24 * 60
_CSR_HASH: Final = re.compile(r"[0-9a-f]{64}")
_AGAIN: Final = "Make another token: wcp360 enrolment-tokens create."


class TokenParams(msgspec.Struct, frozen=True, kw_only=True):
    """What a token shall allow."""

    name: str = ""
    """Name of the node; empty takes the machine's host name."""
    approval: ApprovalMode = ApprovalMode.AUTO
    ttl_minutes: int = 30
    csr_hash: str = ""
    """PRESTAGED: SHA-256 in hex of the machine's request, which `wcp-agent enrol --prepare` shows."""
    allowed_networks: tuple[str, ...] = ()
    roles: tuple[str, ...] = ("web",)


class NewToken(msgspec.Struct, frozen=True, kw_only=True):
    """A token that was just made; the only time its secret is there."""

    row: EnrolmentTokenRow
    token: str


async def create_token(op: FleetOp, params: TokenParams, *, record: Recorder) -> NewToken:
    """Make a token for one machine.

    Raises:
        ForbiddenError
        InvalidInputError: A field is outside its rules.
    """
    op.actor.require("enrolment", "write")
    if not 1 <= params.ttl_minutes <= MAX_TTL_MINUTES:
        raise InvalidInputError(f"ttl_minutes must be 1 to {MAX_TTL_MINUTES}", field="ttl_minutes")
    # Two pins while one authority replaces the other: the machine meets whichever of them is there when it enrols.
    pins = tuple(spki_pin(certificate) for certificate in await list_trusted_authorities(op.session))
    token = EnrolmentToken(token_id=secrets.token_hex(8), secret=secrets.token_hex(32), ca_pins=pins[:2])
    row = EnrolmentTokenRow(
        token_id=token.token_id,
        secret_hash=hash_secret(token.secret),
        name=require_node_name(params.name) if params.name else "",
        approval=params.approval,
        csr_hash=require_csr_hash(params),
        roles=require_roles(params.roles),
        allowed_networks=[parse_network(raw) for raw in params.allowed_networks],
        expires_at=op.now + timedelta(minutes=params.ttl_minutes),
        created_at=op.now,
        updated_at=op.now,
    )
    op.session.add(row)
    await op.session.flush()
    record(op, note_of(row, "enrolment_token.create", is_new=True))
    return NewToken(row=row, token=str(token))


async def delete_token(op: FleetOp, row_id: str, *, record: Recorder) -> None:
    """Make the token worthless; a node that it made stays.

    Raises:
        ForbiddenError, NotFoundError
    """
    op.actor.require("enrolment", "write")
    row = await op.session.get(EnrolmentTokenRow, row_id)
    if row is None:
        raise NotFoundError(f"there is no enrolment token {row_id[:80]!r}")
    await op.session.execute(delete(EnrolmentTokenRow).where(EnrolmentTokenRow.id == row_id))
    record(op, note_of(row, "enrolment_token.delete", is_new=False))


def note_of(row: EnrolmentTokenRow, action: str, *, is_new: bool) -> ChangeNote:
    """The audit entry of a token; its secret is not in it."""
    state: dict[str, Any] = {
        "name": row.name,
        "approval": row.approval.value,
        **({"csr_hash": row.csr_hash} if row.csr_hash else {}),
        "roles": list(row.roles),
        "allowed_networks": list(row.allowed_networks),
        "expires_at": row.expires_at.isoformat(),
    }
    name = row.name or row.token_id
    before, after = (None, state) if is_new else (state, None)
    return ChangeNote(action=action, target=f"enrolment_token/{row.id}", target_name=name, before=before, after=after)


def hash_secret(secret: str) -> str:
    """SHA-256 in hex; enough at rest, because the secret is random and long."""
    return hashlib.sha256(secret.encode()).hexdigest()


def require_csr_hash(params: TokenParams) -> str:
    """The hash, where the mode of approval wants one.

    Raises:
        InvalidInputError: It is missing, is none, or is there without being wanted.
    """
    csr_hash = params.csr_hash.lower()
    if params.approval is not ApprovalMode.PRESTAGED:
        if csr_hash:
            raise InvalidInputError("only a prestaged token names a request", field="csr_hash")
        return ""
    if not _CSR_HASH.fullmatch(csr_hash):
        raise InvalidInputError(
            "a prestaged token needs the SHA-256 of the machine's request in hex",
            field="csr_hash",
            hint="Run on the machine: wcp-agent enrol --prepare",
        )
    return csr_hash


def parse_network(raw: str) -> str:
    """A CIDR in its canonical form; a plain address is a network of one.

    Raises:
        InvalidInputError: It is neither.
    """
    try:
        return str(ipaddress.ip_network(raw))
    except ValueError as error:
        raise InvalidInputError(
            f"{raw[:50]!r} is not a network such as 10.0.0.0/8", field="allowed_networks"
        ) from error


def is_allowed_from(address: str, networks: Iterable[str]) -> bool:
    """Whether the address lies in one of the networks; no networks allow all."""
    allowed = [ipaddress.ip_network(network) for network in networks]
    try:
        seen = ipaddress.ip_address(address)
    except ValueError:
        return not allowed
    if isinstance(seen, ipaddress.IPv6Address) and seen.ipv4_mapped is not None:
        seen = seen.ipv4_mapped
    return not allowed or any(seen in network for network in allowed)


async def find_token(session: AsyncSession, token_id: str) -> EnrolmentTokenRow | None:
    """The row of a token that somebody shows, as it is now."""
    statement = select(EnrolmentTokenRow).where(EnrolmentTokenRow.token_id == token_id)
    return (await session.execute(statement.execution_options(populate_existing=True))).scalar_one_or_none()


def find_fault(row: EnrolmentTokenRow | None, secret: str) -> FleetError | None:
    """Why the one who shows the token does not have it; None when the secret is right."""
    is_right = row is not None and hmac.compare_digest(row.secret_hash, hash_secret(secret))
    if is_right and row is not None and row.failures < FAILURES_MAX:
        return None
    return UnauthenticatedError("this enrolment token is not known", code="token_unknown", hint=_AGAIN)


def find_obstacle(row: EnrolmentTokenRow, *, address: str, csr_hash: str, now: datetime) -> FleetError | None:
    """Why a token that was shown rightly cannot be used now; None when it can."""
    if not is_allowed_from(address, row.allowed_networks):
        networks = ", ".join(row.allowed_networks)
        message = f"this token may not be used from {address}, only from {networks}"
        return ForbiddenError(message, code="wrong_network", hint=_AGAIN)
    if row.used_at is not None:
        return used_error()
    if row.approval is ApprovalMode.PRESTAGED and row.csr_hash != csr_hash:
        message = "this token is for another machine's request"
        hint = "Enrol with the request that was prepared: wcp-agent enrol --prepare shows its hash."
        return ForbiddenError(message, code="csr_not_expected", hint=hint)
    if row.expires_at <= now:
        return ForbiddenError("this enrolment token has expired", code="token_expired", hint=_AGAIN)
    return None


def used_error() -> FleetError:
    """Somebody else was faster, or the same machine came back with another key."""
    return ForbiddenError("this enrolment token was used already", code="token_used", hint=_AGAIN)


async def note_failure(session: AsyncSession, row: EnrolmentTokenRow) -> None:
    """Count a wrong use; after FAILURES_MAX the token is worthless."""
    more = update(EnrolmentTokenRow).where(EnrolmentTokenRow.id == row.id)
    more = more.values(failures=EnrolmentTokenRow.failures + 1)
    await session.execute(more.execution_options(synchronize_session=False))


async def claim_token(session: AsyncSession, row: EnrolmentTokenRow, *, now: datetime) -> bool:
    """Use the token up; False when somebody else just did. One conditional UPDATE decides."""
    claim = update(EnrolmentTokenRow).where(
        EnrolmentTokenRow.id == row.id, EnrolmentTokenRow.used_at.is_(None), EnrolmentTokenRow.expires_at > now
    )
    claim = claim.values(used_at=now).returning(EnrolmentTokenRow.id)
    claimed = await session.execute(claim.execution_options(synchronize_session=False))
    return claimed.scalar_one_or_none() is not None
