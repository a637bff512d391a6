"""Wanted limits against what is enforced."""

from __future__ import annotations

import pytest

from agent.contract.facts import HomeFact, LimitReading, SliceFact
from agent.modules.account.limits import broken_promises, prove_disk, prove_slice, strayed_limits
from shared.specs.account import MIB, AccountSpec, ResourceLimits, StorageDriver
from shared.types.names import UnixName

LIMITS = ResourceLimits(cpu_percent=100, memory_bytes=256 * MIB, io_weight=50, disk_bytes=512 * MIB)
SPEC = AccountSpec(name=UnixName("alice"), uid=20001, limits=LIMITS)
PLAIN = HomeFact(driver=StorageDriver.DIRECTORY, quota_bytes=None)


def make_slice(*, is_active: bool = True, **values: int | None) -> SliceFact:
    readings = {name: LimitReading(value=value, source=f"/sys/{name}") for name, value in values.items()}
    return SliceFact(configured=LIMITS, readings=readings, is_active=is_active)


def test_prove_slice_has_a_proof_for_each_wanted_limit_and_no_other() -> None:
    proofs = prove_slice(SPEC, make_slice(cpu_percent=100, memory_bytes=256 * MIB, processes_max=99), read_at=1.0)

    assert [(proof.limit, proof.wanted, proof.enforced) for proof in proofs] == [
        ("cpu_percent", 100, 100),
        ("memory_bytes", 256 * MIB, 256 * MIB),
        ("io_weight", 50, None),
    ]
    assert broken_promises(proofs, PLAIN) == ()


def test_prove_slice_when_nothing_runs_shows_what_systemd_will_set() -> None:
    proofs = prove_slice(SPEC, make_slice(is_active=False), read_at=1.0)

    assert {proof.enforced for proof in proofs} == {100, 256 * MIB, 50}
    assert all("no process runs" in proof.source for proof in proofs)


@pytest.mark.parametrize("enforced", [None, 128 * MIB, 257 * MIB, 256 * MIB - 65536])
def test_broken_promises_when_the_kernel_has_another_value_names_it(enforced: int | None) -> None:
    proofs = prove_slice(SPEC, make_slice(cpu_percent=100, memory_bytes=enforced), read_at=1.0)

    (complaint,) = broken_promises(proofs, PLAIN)

    assert complaint.startswith(f"memory_bytes is {enforced} instead of {256 * MIB}")


def test_broken_promises_when_a_controller_is_missing_names_the_limit() -> None:
    proofs = prove_slice(SPEC, make_slice(memory_bytes=256 * MIB), read_at=1.0)

    assert [complaint.split()[0] for complaint in broken_promises(proofs, PLAIN)] == ["cpu_percent"]


def test_prove_disk_on_a_plain_directory_is_honest_and_no_failure() -> None:
    (proof,) = prove_disk(SPEC, PLAIN, read_at=1.0)

    assert (proof.enforced, proof.source) == (None, "a plain directory: counted, not enforced")
    assert broken_promises((proof,), PLAIN) == ()


@pytest.mark.parametrize("enforced", [None, 100 * MIB])
def test_broken_promises_when_btrfs_enforces_another_size_names_it(enforced: int | None) -> None:
    home = HomeFact(driver=StorageDriver.BTRFS, quota_bytes=enforced)
    proofs = prove_disk(SPEC, home, read_at=1.0)

    assert len(broken_promises(proofs, home)) == 1


def test_strayed_limits_ignores_what_the_kernel_does_not_show() -> None:
    assert strayed_limits(LIMITS, make_slice()) == ()
    assert strayed_limits(LIMITS, make_slice(cpu_percent=50, io_weight=1)) == ("cpu_percent",)
