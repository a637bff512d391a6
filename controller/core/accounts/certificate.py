"""What is certified when an account is gone: taken together before its rows let go of anything, and checked later."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts import store
from controller.core.accounts.models import Account, DeletionCertificate
from controller.core.accounts.views import AuditPlace, DeletionCertificateView
from controller.core.audit.chain import entry_hash
from controller.core.audit.models import AuditEntry
from controller.core.clients.models import Client
from controller.core.context import OpContext
from controller.core.domains.models import Domain
from controller.core.fields import not_found, require_id
from controller.fleet.models import Node
from controller.jobs.models import Job
from shared.audit_proof import render_canonical

FORMAT: Final = "wcp360-deletion-certificate-1"
CERTIFIED: Final = "account.certify_deletion"
"""Action of the audit entry that holds a certificate's hash."""
_SITE: Final = "site/"


def hash_certificate(content: dict[str, Any]) -> str:
    """SHA-256 in hex over the canonical JSON."""
    return hashlib.sha256(render_canonical(content)).hexdigest()


async def gather_content(
    session: AsyncSession, account: Account, resources: Collection[str], job: Job | None, at: str
) -> dict[str, Any]:
    """What the account had, while its rows still say so.

    Args:
        session: Where nothing was let go of yet.
        account: It is about to be gone.
        resources: Keys of everything that its node was told to remove.
        job: In which the node said that nothing is left; None: the node was revoked, and nobody can say.
        at: When it is gone, ISO 8601.
    """
    owner = await session.get(Client, account.client_id)
    node = await session.get(Node, account.node_id) if account.node_id else None
    named = select(Domain.name).where(Domain.account_id == account.id, Domain.deleted_at.is_(None))
    asked_at = account.deletion_asked_at
    return {
        "format": FORMAT,
        "account": {"id": account.id, "name": account.name, "created_at": account.created_at.isoformat()},
        "client": {"id": account.client_id, "name": owner.name if owner else ""},
        "node": {"id": account.node_id, "name": node.name if node else ""},
        "uid": account.uid,
        "homes": [f"/srv/accounts/{account.name}"],
        "domains": sorted(await session.scalars(named)),
        "sites": sorted(key.removeprefix(_SITE) for key in resources if key.startswith(_SITE)),
        "resources": sorted(resources),
        "asked_by": account.deletion_asked_by,
        "asked_by_name": account.deletion_asked_by_name,
        "asked_at": asked_at.isoformat() if asked_at else None,
        "removed_at": at,
        "proof": _render_proof(job),
    }


def _render_proof(job: Job | None) -> dict[str, Any]:
    if job is None:
        return {"kind": "none", "reason": "the node was revoked: what is left on it is not known"}
    return {"kind": "job", "job_id": job.id, "generation": job.generation}


async def show_certificate(ctx: OpContext, account_id: str) -> DeletionCertificateView:
    """What was removed with an account that is gone.

    Raises:
        ForbiddenError
        NotFoundError: There is no such account, or it is not gone.
    """
    ctx.actor.require("accounts", "read")
    account = await store.get_account_ever(ctx.session, account_id)
    statement = select(DeletionCertificate).where(DeletionCertificate.account_id == account.id)
    row = (await ctx.session.scalars(statement)).first()
    if row is None:
        raise not_found("certificate of the deletion of", require_id("account", account_id))
    problem = await _find_problem(ctx.session, row)
    is_sealed = row.audit_number is not None and row.audit_hash is not None
    return DeletionCertificateView(
        id=row.id,
        account_id=row.account_id,
        content=row.content,
        content_hash=row.content_hash,
        audit=AuditPlace(number=row.audit_number or 0, hash=row.audit_hash or "") if is_sealed else None,
        is_verified=not problem,
        problem=problem,
        created_at=row.created_at,
    )


async def _find_problem(session: AsyncSession, row: DeletionCertificate) -> str:
    if hash_certificate(row.content) != row.content_hash:
        return "the content is not what was certified"
    if row.audit_number is None:
        return "the audit log does not hold it yet; ask again in a minute"
    entry = (await session.scalars(select(AuditEntry).where(AuditEntry.number == row.audit_number))).first()
    if entry is None:
        return f"entry {row.audit_number} is not in the audit log here; look for it in the archive"
    if entry.hash != row.audit_hash or entry_hash(entry) != entry.hash:
        return f"entry {row.audit_number} of the audit log was changed"
    if (entry.after or {}).get("certificate_hash") != row.content_hash:
        return f"entry {row.audit_number} of the audit log holds another hash"
    return ""


async def find_entry(session: AsyncSession, account_id: str) -> AuditEntry | None:
    """The audit entry that holds the certificate's hash."""
    statement = select(AuditEntry).where(AuditEntry.target == f"account/{account_id}", AuditEntry.action == CERTIFIED)
    return (await session.scalars(statement)).first()
