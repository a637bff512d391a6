"""What nodes signed, as an export and a verification need it: the newest word of each node proves all before it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Select, and_, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.audit.models import AuditCheckpoint
from controller.core.audit.witness_models import AuditWitness, AuditWitnessCertificate
from shared.audit_proof import ProofError
from shared.audit_witness import Witnesses, parse_statement


def _select_newest(first: int, last: int) -> Select[AuditWitness]:
    """The last word of each node about these entries."""
    within = and_(AuditWitness.number >= first, AuditWitness.number <= last)
    newest = select(AuditWitness.node_id, func.max(AuditWitness.number).label("number")).where(within)
    found = newest.group_by(AuditWitness.node_id).subquery()
    fits = and_(AuditWitness.node_id == found.c.node_id, AuditWitness.number == found.c.number)
    return select(AuditWitness).join(found, fits)


async def read_authorities(session: AsyncSession, first: int, last: int) -> str:
    """Who issued the certificates of these witnesses, as PEM."""
    return "".join(sorted({row.authority_pem for row in await _list_certificates(session, first, last)}))


async def list_witness_records(session: AsyncSession, first: int, last: int) -> list[dict[str, Any]]:
    """Records of an export: certificates, then what was signed with them."""
    certificates = await _list_certificates(session, first, last)
    rows = list(await session.scalars(_select_newest(first, last).order_by(AuditWitness.node_id)))
    return [{"kind": "certificate", "pem": row.pem} for row in certificates] + [
        {"kind": "witness", "payload": row.payload, "fingerprint": row.fingerprint, "signature": row.signature}
        for row in rows
    ]


async def find_witness_fault(session: AsyncSession) -> tuple[int, str] | None:
    """The first checkpoint that is not the one that nodes signed, or was not signed by them: its number, and why.

    All words are compared, and the newest signature of each node is checked.
    """
    fits = AuditCheckpoint.number == AuditWitness.number
    rows = await session.execute(
        select(AuditWitness.number, AuditWitness.payload, AuditCheckpoint.hash)
        .join(AuditCheckpoint, fits, isouter=True)
        .order_by(AuditWitness.number)
    )
    last = 0
    for number, payload, value in rows:
        last = number
        try:
            said = parse_statement(payload)
        except ProofError as error:
            return number, str(error)
        if (said.number, said.hash) != (number, value):
            return number, f"node {said.node_id} signed another log at entry {number}"
    if last == 0:
        return None
    return _judge(await list_witness_records(session, 1, last), await read_authorities(session, 1, last))


def _judge(records: list[dict[str, Any]], authorities: str) -> tuple[int, str] | None:
    number = 0
    try:
        number = next(parse_statement(record["payload"]).number for record in records if record["kind"] == "witness")
        witnesses = Witnesses(_cluster_of(records), authorities)
        for record in records:
            if record["kind"] == "certificate":
                witnesses.take_certificate(record["pem"])
            else:
                number = parse_statement(record["payload"]).number
                witnesses.take(record)
    except ProofError as error:
        return number, str(error)
    return None


def _cluster_of(records: list[dict[str, Any]]) -> str:
    return next(parse_statement(record["payload"]).cluster_id for record in records if record["kind"] == "witness")


async def _list_certificates(session: AsyncSession, first: int, last: int) -> list[AuditWitnessCertificate]:
    used = _select_newest(first, last).with_only_columns(AuditWitness.fingerprint)
    statement = select(AuditWitnessCertificate).where(AuditWitnessCertificate.fingerprint.in_(used))
    return list(await session.scalars(statement.order_by(AuditWitnessCertificate.fingerprint)))
