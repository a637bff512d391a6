"""MemoryHost keeps the promises of Host: above all, undo in reverse brings everything back."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.contract.actions import (
    AnyAction,
    ConfigTree,
    EndProcesses,
    EnsureDirectory,
    EnsureHome,
    EnsureUnit,
    EnsureUser,
    InstallPackages,
    PublishConfig,
    ReloadSystemd,
    ReloadUnit,
    RemoveFile,
    RemoveHome,
    RemovePackages,
    RemoveTree,
    RemoveUser,
    SetSliceLimits,
    WriteFile,
    content_hash,
)
from agent.simulator.host import MemoryHost
from agent.simulator.host_faults import SimulatedCrash
from agent.simulator.host_state import DEBIAN_13
from shared.errors import CommandError, ConfigTestError, FactError, FleetError, UnavailableError
from shared.specs.account import MIB, ResourceLimits, StorageDriver

SITES = "/etc/nginx/wcp360/sites"
NGINX = ConfigTree(name="nginx", live_dir=SITES, validator=("nginx", "-t"), reload_unit="nginx.service")
PATHS = (
    "/etc/wcp360/a",
    "/etc/wcp360/a/b",
    "/etc/wcp360/c.conf",
    "/etc/systemd/system/x.service",
    f"{SITES}/s.conf",
    SITES,
    "/etc/nginx/wcp360",
    "/srv/accounts/shop",
    "/srv/accounts/shop/public",
    "/nowhere/at/all",
)
OWNERS = ("root", "www-data", "shop", "nobody-here")
R = "test"

paths = st.sampled_from(PATHS)
owners = st.sampled_from(OWNERS)
names = st.sampled_from(("shop", "other"))
uids = st.sampled_from((20001, 20002))
units = st.sampled_from(("nginx.service", "php8.2-fpm.service", "x.service", "unknown.service"))
packages = st.lists(st.sampled_from(("nginx", "php8.2-fpm", "php8.2-cli", "no-such")), min_size=1, unique=True).map(
    tuple
)
contents = st.sampled_from(("", "one\n", "two\n", "not_a_directive;\n"))
three = st.sampled_from((None, True, False))
limits = st.builds(
    ResourceLimits, cpu_percent=st.sampled_from((None, 50)), disk_bytes=st.sampled_from((None, 20 * MIB))
)
writes = st.builds(
    WriteFile, path=paths, content=contents, owner=owners, mode=st.sampled_from((0o600, 0o644)), reason=st.just(R)
)
publications = st.builds(
    PublishConfig,
    tree=st.sampled_from(("nginx", "other")),
    files=st.lists(writes, max_size=2).map(tuple),
    removals=st.lists(paths, max_size=1).map(tuple),
    reason=st.just(R),
)
reversible = st.one_of(
    st.builds(
        EnsureUser, name=names, uid=uids, home=st.just("/srv/accounts/shop"), is_locked=st.booleans(), reason=st.just(R)
    ),
    st.builds(RemoveUser, name=names, reason=st.just(R)),
    st.builds(EnsureDirectory, path=paths, owner=owners, reason=st.just(R)),
    st.builds(
        EnsureHome,
        path=paths,
        driver=st.sampled_from((StorageDriver.BTRFS, StorageDriver.DIRECTORY)),
        owner=owners,
        group=owners,
        mode=st.just(0o710),
        quota_bytes=st.sampled_from((None, 20 * MIB)),
        reason=st.just(R),
    ),
    writes,
    st.builds(RemoveFile, path=paths, reason=st.just(R)),
    publications,
    st.builds(InstallPackages, names=packages, reason=st.just(R)),
    st.builds(RemovePackages, names=packages, reason=st.just(R)),
    st.builds(EnsureUnit, unit=units, is_running=three, is_enabled=three, reason=st.just(R)),
    st.builds(ReloadUnit, unit=units, reason=st.just(R)),
    st.builds(ReloadSystemd, reason=st.just(R)),
    st.builds(SetSliceLimits, uid=uids, limits=limits, reason=st.just(R)),
    st.builds(EndProcesses, uid=uids, reason=st.just(R)),
)


async def apply_all(host: MemoryHost, actions: list[AnyAction]) -> list[tuple[AnyAction, bytes]]:
    """As core would, but going on after a failure, which leaves nothing half done here."""
    done: list[tuple[AnyAction, bytes]] = []
    for action in actions:
        done.append((action, await host.capture(action)))
        try:
            await host.apply(action)
        except FleetError:
            continue
    return done


@settings(max_examples=300, deadline=None)
@given(prepared=st.lists(reversible, max_size=6), actions=st.lists(reversible, max_size=12))
def test_undo_when_run_in_reverse_brings_everything_back(prepared: list[AnyAction], actions: list[AnyAction]) -> None:
    async def scenario() -> None:
        host = MemoryHost(config_trees=(NGINX,))
        await apply_all(host, prepared)
        before = host.snapshot()

        done = await apply_all(host, actions)
        for action, record in reversed(done):
            await host.undo(action, record)
            await host.undo(action, record)

        assert host.snapshot() == before

    asyncio.run(scenario())


@settings(max_examples=200, deadline=None)
@given(prepared=st.lists(reversible, max_size=6), action=reversible)
def test_apply_when_repeated_changes_nothing_more(prepared: list[AnyAction], action: AnyAction) -> None:
    async def scenario() -> None:
        host = MemoryHost(config_trees=(NGINX,))
        await apply_all(host, [*prepared, action])
        once = host.snapshot()

        await apply_all(host, [action])

        assert host.snapshot() == once

    asyncio.run(scenario())


def write(path: str = "/etc/wcp360/a.conf", content: str = "x\n") -> WriteFile:
    return WriteFile(path=path, content=content, reason=R)


@pytest.fixture
def host() -> MemoryHost:
    return MemoryHost(config_trees=(NGINX,))


async def with_nginx(host: MemoryHost) -> None:
    await host.apply(InstallPackages(names=("nginx",), reason=R))
    for path in ("/etc/nginx/wcp360", SITES):
        await host.apply(EnsureDirectory(path=path, reason=R))


async def test_facts_when_nothing_is_there_say_so(host: MemoryHost) -> None:
    assert await host.user("shop") is None
    assert await host.user_of_uid(20001) is None
    assert await host.path("/etc/none") is None
    assert await host.read_text("/etc/none") is None
    assert await host.list_directory("/etc/none") is None
    assert await host.home("/srv/accounts/shop") is None
    assert await host.packages(("nginx",)) == {}
    assert not (await host.unit("none.service")).is_loaded
    assert not (await host.slice(20001)).is_active
    assert await host.http_get(host_name="shop.example", path="/") is None


async def test_facts_when_file_is_written_match_a_real_host(host: MemoryHost) -> None:
    await host.apply(write(content="hello\n"))

    fact = await host.path("/etc/wcp360/a.conf")
    assert fact is not None
    assert (fact.kind, fact.owner, fact.mode, fact.content_hash) == ("file", "root", 0o644, content_hash("hello\n"))
    assert await host.list_directory("/etc/wcp360") == ("a.conf",)
    assert "etc" in (await host.list_directory("/") or ())


async def test_apply_when_impossible_on_a_real_host_fails_and_changes_nothing(host: MemoryHost) -> None:
    before = host.snapshot()
    impossible: tuple[AnyAction, ...] = (
        write("/no/parent"),
        WriteFile(path="/etc/a", content="", owner="nobody-here", reason=R),
        RemoveFile(path="/etc", reason=R),
        EnsureUnit(unit="unknown.service", is_running=True, reason=R),
        InstallPackages(names=("no-such",), reason=R),
        PublishConfig(tree="unknown", reason=R),
    )

    for action in impossible:
        with pytest.raises(FleetError):
            await host.apply(action)

    assert host.snapshot() == before


async def test_publish_when_validator_refuses_speaks_like_nginx_and_changes_nothing(host: MemoryHost) -> None:
    await with_nginx(host)
    before = host.snapshot()
    bad = write(f"{SITES}/s.conf", "server {\n  not_a_directive on;\n}\n")

    with pytest.raises(ConfigTestError) as caught:
        await host.apply(PublishConfig(tree="nginx", files=(bad,), reason=R))

    assert caught.value.message == f'nginx: [emerg] unknown directive "not_a_directive" in {SITES}/s.conf:2'
    assert host.snapshot() == before


async def test_publish_when_nginx_runs_reloads_it_and_serves_the_name(host: MemoryHost) -> None:
    await with_nginx(host)
    await host.apply(EnsureUnit(unit="nginx.service", is_running=True, reason=R))
    file = write(f"{SITES}/s.conf", "server_name shop.example;\n")
    action = PublishConfig(tree="nginx", files=(file,), reason=R)

    record = await host.capture(action)
    await host.apply(action)

    answer = await host.http_get(host_name="shop.example", path="/")
    assert answer is not None
    assert answer.status == 200
    await host.undo(action, record)
    assert host.reloads == ["nginx.service", "nginx.service"]


async def test_install_when_on_another_debian_finds_its_php() -> None:
    host = MemoryHost(repository=DEBIAN_13)

    assert await host.available_packages("php*-fpm") == ("php8.4-fpm",)
    await host.apply(InstallPackages(names=("php8.4-fpm",), reason=R))
    unit = await host.unit("php8.4-fpm.service")
    assert (unit.is_loaded, unit.is_running, unit.is_enabled) == (True, False, True)


async def test_unit_when_it_is_an_instance_of_our_template_is_loaded(host: MemoryHost) -> None:
    await host.apply(write("/etc/systemd/system/wcp-php8.2@.socket", "[Socket]\n"))

    await host.apply(EnsureUnit(unit="wcp-php8.2@20001.socket", is_running=True, is_enabled=True, reason=R))

    assert (await host.unit("wcp-php8.2@20001.socket")).is_running


async def test_slice_when_limits_are_set_reads_them_back(host: MemoryHost) -> None:
    wanted = ResourceLimits(cpu_percent=50, disk_bytes=20 * MIB)

    await host.apply(SetSliceLimits(uid=20001, limits=wanted, reason=R))

    fact = await host.slice(20001)
    assert fact.configured == ResourceLimits(cpu_percent=50)
    assert fact.readings["cpu_percent"].value == 50
    assert fact.readings["memory_bytes"].value is None


async def test_removals_when_irreversible_take_all_and_undo_is_silent(host: MemoryHost) -> None:
    await host.apply(EnsureDirectory(path="/etc/wcp360/t", reason=R))
    await host.apply(write("/etc/wcp360/t/f"))
    action = RemoveTree(path="/etc/wcp360/t", reason=R)
    record = await host.capture(action)

    await host.apply(action)
    await host.undo(action, record)

    assert await host.path("/etc/wcp360/t/f") is None
    await host.apply(RemoveHome(path="/srv/accounts/none", reason=R))


async def test_end_processes_when_some_run_ends_them(host: MemoryHost) -> None:
    host.start_processes(20001, 3)
    assert await host.has_processes(20001)

    await host.apply(EndProcesses(uid=20001, reason=R))

    assert not await host.has_processes(20001)


async def test_home_when_file_system_has_no_quota_is_not_limited() -> None:
    host = MemoryHost(storage=StorageDriver.DIRECTORY)
    home = EnsureHome(
        path="/srv/accounts/shop",
        driver=StorageDriver.DIRECTORY,
        owner="root",
        group="www-data",
        mode=0o710,
        quota_bytes=20 * MIB,
        reason=R,
    )

    await host.apply(home)

    fact = await host.home("/srv/accounts/shop")
    assert fact is not None
    assert fact.quota_bytes is None
    assert await host.storage_driver("/srv/accounts") is StorageDriver.DIRECTORY
    with pytest.raises(FactError):
        await host.storage_driver("/none")


async def test_fault_when_planned_for_a_kind_strikes_once_before_the_effect(host: MemoryHost) -> None:
    host.fail_at(WriteFile, UnavailableError("the disk is full"))

    with pytest.raises(UnavailableError):
        await host.apply(write())
    assert await host.path("/etc/wcp360/a.conf") is None
    await host.apply(write())


async def test_fault_when_planned_by_number_and_after_leaves_the_effect(host: MemoryHost) -> None:
    host.fail_at(1, CommandError(("x",), 1, "late"), is_after=True)

    await host.apply(write("/etc/wcp360/first"))
    with pytest.raises(CommandError):
        await host.apply(write("/etc/wcp360/second"))

    assert await host.path("/etc/wcp360/second") is not None


async def test_crash_when_planned_passes_every_error_handler(host: MemoryHost) -> None:
    host.crash_at(WriteFile)

    with pytest.raises(SimulatedCrash):
        await host.apply(write())
    assert not issubclass(SimulatedCrash, Exception)


async def test_undo_when_told_to_fail_fails_once(host: MemoryHost) -> None:
    record = await host.capture(write())
    await host.apply(write())
    host.fail_undo_at(WriteFile, UnavailableError("no"))

    with pytest.raises(UnavailableError):
        await host.undo(write(), record)
    await host.undo(write(), record)
    assert await host.path("/etc/wcp360/a.conf") is None


async def test_diff_when_file_differs_shows_it(host: MemoryHost) -> None:
    host.put_file("/etc/wcp360/a.conf", "old\n")

    diff = await host.diff(write(content="new\n"))

    assert "-old" in diff
    assert "+new" in diff
    assert await host.diff(ReloadSystemd(reason=R)) == ""
