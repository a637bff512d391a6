"""Faults 5 and 6 for any plan: killed at every fault point, failed at every step, everything twice."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.core import faults
from shared.protocol.job import JobState
from shared.specs.account import MIB, AccountSpec, ResourceLimits, StorageDriver
from shared.specs.base import Presence
from shared.specs.manifest import AnySpec, Manifest
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec, php_socket_path
from shared.specs.site import SiteSpec
from shared.types.names import DomainName, UnixName
from tests.faults.node_plan_harness import (
    MODULES,
    Change,
    absent,
    die_and_end,
    prepare,
    prove_deaths,
    prove_failures_of_the_job,
    prove_repetition,
    prove_unwinding,
    run,
)

UID = 20_001
ALICE = UnixName("alice")
SUBJECT = "account/alice"
ELSEWHERE = ("trust.", "recovery.")
"""Points that no job passes."""
ALWAYS = {"job.after_journal", "job.after_start", "transaction.after_begin", "database.after_commit"}
"""What every change passes."""
POINTS = [point for point in faults.POINTS if not point.startswith(ELSEWHERE)]


def account(**limits: int) -> AccountSpec:
    return AccountSpec(name=ALICE, uid=UID, limits=ResourceLimits(**limits))


def pool() -> PhpPoolSpec:
    return PhpPoolSpec(account=ALICE, uid=UID, version="8.2")


def site(domain: str, *, is_php: bool = False, text: str = "", aliases: tuple[str, ...] = ()) -> SiteSpec:
    return SiteSpec(
        account=ALICE,
        uid=UID,
        domain=DomainName(domain),
        aliases=tuple(DomainName(alias) for alias in aliases),
        php_socket_path=php_socket_path("8.2", UID) if is_php else None,
        extra_directives=text,
    )


def wanted(generation: int, *specs: AnySpec, presence: Presence = Presence.ENABLED) -> Manifest:
    return Manifest(subject=SUBJECT, generation=generation, specs=specs, presence=presence)


FULL = (account(memory_bytes=256 * MIB, disk_bytes=100 * MIB), pool(), site("a.example.com", is_php=True))
NODE_OFF = Manifest(
    subject="node",
    generation=2,
    specs=(
        ModuleSpec(name="account"),
        ModuleSpec(name="php", presence=Presence.ABSENT),
        ModuleSpec(name="web", presence=Presence.DISABLED),
    ),
)
CHANGES = (
    Change(name="modules", before=(), asked=MODULES),
    Change(name="modules-off", asked=NODE_OFF),
    Change(name="creates", asked=wanted(1, *FULL)),
    Change(
        name="changes",
        before=(MODULES, wanted(1, *FULL, site("old.example.com"))),
        asked=wanted(2, account(memory_bytes=512 * MIB), site("a.example.com", aliases=("www.a.example.com",))),
    ),
    Change(
        name="parks",
        before=(MODULES, wanted(1, *FULL)),
        asked=wanted(2, *FULL, site("b.example.com", text="not_a_directive;"), site("c.example.com", is_php=True)),
    ),
    Change(
        name="fails",
        before=(MODULES, wanted(1, *FULL)),
        asked=wanted(2, msgspec.structs.replace(FULL[0], storage=StorageDriver.DIRECTORY), site("d.example.com")),
    ),
    Change(name="suspends", before=(MODULES, wanted(1, *FULL)), asked=wanted(2, *FULL, presence=Presence.DISABLED)),
    Change(
        name="wakes",
        before=(MODULES, wanted(1, *FULL), wanted(2, *FULL, presence=Presence.DISABLED)),
        asked=wanted(3, *FULL),
    ),
    Change(name="removes", before=(MODULES, wanted(1, *FULL)), asked=absent(SUBJECT, 2)),
)
every_change = pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.name)


@pytest.fixture
def base() -> Iterator[Path]:
    """In memory: it is the process that dies here, not the machine."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="wcp-plan-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def reached() -> set[str]:
    """Points at which some change has died in this run."""
    return set()


@pytest.mark.timeout(300)
@every_change
def test_fault_06_executor_when_it_dies_at_any_point_leaves_all_or_nothing(
    base: Path, change: Change, reached: set[str]
) -> None:
    died_at = prove_deaths(change, base, POINTS)

    assert died_at >= ALWAYS
    reached |= died_at


def test_fault_06_sweep_when_all_changes_are_run_reaches_every_point(base: Path, reached: set[str]) -> None:
    """A point that nothing passes would prove nothing. Alone, it looks for itself."""
    unreached = set(POINTS) - reached
    for change in CHANGES:
        unreached -= prove_deaths(change, base / change.name, sorted(unreached))

    assert unreached == set()


@every_change
@pytest.mark.parametrize("is_after", [False, True], ids=["before-its-effect", "after-its-effect"])
async def test_plan_when_any_step_fails_is_unwound_to_a_clean_slate(
    base: Path, change: Change, *, is_after: bool
) -> None:
    prepare(change, base / "prepared")

    steps = await prove_unwinding(change, base / "prepared", base, is_after=is_after)

    assert steps > 0 or change.name == "fails"


@every_change
async def test_job_when_any_step_fails_parks_or_undoes_and_comes_about_when_asked_again(
    base: Path, change: Change
) -> None:
    prepare(change, base / "prepared")
    _, after = run(change, base / "prepared", base / "after")

    await prove_failures_of_the_job(change, base / "prepared", base, after)


@every_change
async def test_job_when_every_step_is_done_twice_is_the_same(base: Path, change: Change) -> None:
    prepare(change, base / "prepared")
    _, after = run(change, base / "prepared", base / "after")

    await prove_repetition(change, base / "prepared", base, after)


# --- any manifest -------------------------------------------------------------------------------------------------------

limits = st.builds(
    ResourceLimits,
    cpu_percent=st.none() | st.integers(1, 400),
    memory_bytes=st.none() | st.integers(16 * MIB, 2**34),
    processes_max=st.none() | st.integers(5, 1000),
    disk_bytes=st.none() | st.integers(10 * MIB, 2**36),
)
domains = st.sampled_from(["a.example.com", "b.example.com", "c.test", "xn--bcher-kva.example"])
texts = st.sampled_from(["", "location /x { return 204; }", "not_a_directive;", "wcp_refuse_me;"])
presences = st.sampled_from(Presence)


@st.composite
def manifests(draw: st.DrawFn, generation: int) -> Manifest:
    """Any account: some limits, sites with and without PHP, some refused by nginx, active, suspended or gone."""
    names = draw(st.lists(domains, max_size=3, unique=True))
    sites = [site(name, is_php=draw(st.booleans()), text=draw(texts)) for name in names]
    pools = (pool(),) if any(found.php_socket_path for found in sites) or draw(st.booleans()) else ()
    found = AccountSpec(name=ALICE, uid=UID, limits=draw(limits))
    presence = draw(presences)
    specs: tuple[AnySpec, ...] = (found, *pools, *sites)
    return wanted(generation, *(() if presence is Presence.ABSENT else specs), presence=presence)


@st.composite
def changes(draw: st.DrawFn) -> Change:
    count = draw(st.integers(0, 2))
    before = [draw(manifests(number + 1)) for number in range(count)]
    return Change(name="any", before=(MODULES, *before), asked=draw(manifests(count + 1)))


few = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@few
@given(change=changes(), point=st.sampled_from(POINTS), hit=st.integers(1, 12))
def test_fault_06_executor_when_it_dies_in_any_change_leaves_all_or_nothing(
    change: Change, point: str, hit: int
) -> None:
    with tempfile.TemporaryDirectory(prefix="wcp-plan-", dir="/dev/shm") as folder:
        base = Path(folder)
        before = prepare(change, base / "prepared")
        result, after = run(change, base / "prepared", base / "after")
        (base / "prepared").rename(base / "death")
        die_and_end(change, base / "death", f"{point}:{hit}", before, after, result.state)


@few
@given(change=changes())
async def test_any_plan_when_any_step_fails_or_is_repeated_holds(change: Change) -> None:
    with tempfile.TemporaryDirectory(prefix="wcp-plan-", dir="/dev/shm") as folder:
        base = Path(folder)
        prepare(change, base / "prepared")
        result, after = run(change, base / "prepared", base / "after")

        await prove_unwinding(change, base / "prepared", base, is_after=True)
        await prove_repetition(change, base / "prepared", base, after)
        if result.state is JobState.SUCCEEDED:
            await prove_failures_of_the_job(change, base / "prepared", base, after)
