"""Wanted limits against what systemd keeps and the kernel enforces."""

from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.facts import HomeFact, SliceFact
from shared.protocol.job import Proof
from shared.specs.account import AccountSpec, ResourceLimits, StorageDriver

STRICT_LIMITS: Final = ("cpu_percent", "memory_bytes", "processes_max")
"""Limits that every kernel we run on enforces: without them the account is not what was promised."""
BEST_EFFORT_LIMITS: Final = ("io_weight",)
"""Depends on the disk's scheduler: reported, never a failure."""
LARGEST_PAGE_BYTES: Final = 64 * 1024
"""The kernel rounds memory limits down to whole pages. Source: page_counter_memparse(), mm/page_counter.c."""


def kernel_limits(limits: ResourceLimits) -> ResourceLimits:
    """The part of the limits that the slice holds; the size of the home is the storage driver's."""
    return msgspec.structs.replace(limits, disk_bytes=None)


def strayed_limits(wanted: ResourceLimits, fact: SliceFact) -> tuple[str, ...]:
    """Names of the limits that the kernel was told and does not have as wanted; empty while nothing runs."""
    return tuple(
        field
        for field in STRICT_LIMITS
        if getattr(wanted, field) is not None
        and field in fact.readings
        and not _is_enforced(field, getattr(wanted, field), fact.readings[field].value)
    )


def prove_slice(spec: AccountSpec, fact: SliceFact, read_at: float) -> tuple[Proof, ...]:
    """One proof for each wanted limit, `enforced` as the kernel has it (or as systemd will set it for a sleeper)."""
    return tuple(
        _prove(spec, field, fact, read_at)
        for field in (*STRICT_LIMITS, *BEST_EFFORT_LIMITS)
        if getattr(spec.limits, field) is not None
    )


def prove_disk(spec: AccountSpec, home: HomeFact | None, read_at: float) -> tuple[Proof, ...]:
    wanted = spec.limits.disk_bytes
    if wanted is None:
        return ()
    is_enforceable = home is not None and home.driver is StorageDriver.BTRFS
    return (
        Proof(
            resource=spec.key,
            limit="disk_bytes",
            wanted=wanted,
            enforced=home.quota_bytes if home is not None else None,
            source="btrfs qgroup" if is_enforceable else "a plain directory: counted, not enforced",
            read_at=read_at,
        ),
    )


def broken_promises(proofs: tuple[Proof, ...], home: HomeFact | None) -> tuple[str, ...]:
    """Sentences about limits that should hold and do not."""
    strict = (*STRICT_LIMITS, *(("disk_bytes",) if home is not None and home.driver is StorageDriver.BTRFS else ()))
    return tuple(
        f"{proof.limit} is {proof.enforced} instead of {proof.wanted} ({proof.source})"
        for proof in proofs
        if proof.limit in strict and not _is_enforced(proof.limit, proof.wanted, proof.enforced)
    )


def _prove(spec: AccountSpec, field: str, fact: SliceFact, read_at: float) -> Proof:
    reading = fact.readings.get(field)
    if reading is None and not fact.is_active:
        enforced, source = getattr(fact.configured, field), f"user-{spec.uid}.slice in systemd (no process runs)"
    elif reading is None:
        enforced, source = None, "the kernel has no such file here"
    else:
        enforced, source = reading.value, reading.source
    return Proof(
        resource=spec.key,
        limit=field,
        wanted=getattr(spec.limits, field),
        enforced=enforced,
        source=source,
        read_at=read_at,
    )


def _is_enforced(field: str, wanted: int | None, enforced: int | None) -> bool:
    if wanted is None or enforced is None:
        return wanted == enforced
    if field == "memory_bytes":
        return 0 <= wanted - enforced < LARGEST_PAGE_BYTES
    return wanted == enforced
