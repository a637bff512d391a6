# ruff: noqa: ASYNC110, ASYNC240, PT017 - a script with one task, and no pytest on a node
"""What RealHost must really do on a Debian node. Run there: `python3 -m tests.e2e.system.scenarios NAME`.

Needs only what the agent itself needs. Every scenario leaves the node as it found it.
"""

from __future__ import annotations

import asyncio
import os
import pwd
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

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
    RemoveHome,
    RemovePackages,
    RemoveUser,
    SetSliceLimits,
    WriteFile,
)
from agent.system.host import RealHost
from shared.errors import CommandError, ConfigTestError
from shared.specs.account import MIB, ResourceLimits, StorageDriver

NAME, UID = "scenario", 20_777
HOME = f"/srv/accounts/{NAME}"
LIMITS = ResourceLimits(cpu_percent=40, memory_bytes=96 * MIB, processes_max=25, io_weight=250, disk_bytes=20 * MIB)
CHECKPOINTS = Path("/var/lib/wcp360-executor/checkpoints")
SITES = "/etc/nginx/wcp360/sites"
NGINX = ConfigTree(
    name="nginx",
    live_dir=SITES,
    validator=("nginx", "-t", "-q", "-c", "{stage}"),
    main_file="/etc/nginx/nginx.conf",
    reload_unit="nginx.service",
)


class Recorder:
    """Applies like core does: capture, apply, and undo all in reverse."""

    def __init__(self, host: RealHost) -> None:
        self.host = host
        self.done: list[tuple[AnyAction, bytes]] = []

    async def apply(self, action: AnyAction) -> None:
        self.done.append((action, await self.host.capture(action)))
        await self.host.apply(action)

    async def undo_all(self) -> None:
        for action, record in reversed(self.done):
            await self.host.undo(action, record)
            # Whatever was undone once is undone again after a crash.
            await self.host.undo(action, record)
        self.done.clear()


def user(*, is_locked: bool = False) -> EnsureUser:
    return EnsureUser(name=NAME, uid=UID, home=HOME, is_locked=is_locked, reason="scenario")


def said_by(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


async def user_is_created_locked_removed_and_undone(host: RealHost) -> None:
    before = Path("/etc/passwd").read_text() + Path("/etc/group").read_text() + Path("/etc/shadow").read_text()
    steps = Recorder(host)
    await steps.apply(user())
    made = await host.user(NAME)
    assert made is not None
    assert (made.uid, made.gid, made.is_locked) == (UID, UID, False)
    assert await host.user_of_uid(UID) == made
    assert NAME not in Path("/etc/subuid").read_text()
    assert not Path(HOME).exists()
    assert shadow_fields()[1] == "*"

    await steps.apply(user(is_locked=True))
    locked = await host.user(NAME)
    assert locked is not None
    assert locked.is_locked
    assert (shadow_fields()[1], shadow_fields()[7]) == ("!*", "1")
    # PAM's account step, which sshd and cron ask as well; root may pass it, and is told.
    told = as_systemd_runs("su", "--shell=/bin/true", NAME).stderr
    assert "expired" in told.lower()

    await steps.apply(RemoveUser(name=NAME, reason="scenario"))
    assert await host.user(NAME) is None
    action, record = steps.done.pop()
    await host.undo(action, record)
    assert await host.user(NAME) == locked
    await steps.undo_all()
    after = Path("/etc/passwd").read_text() + Path("/etc/group").read_text() + Path("/etc/shadow").read_text()
    assert after == before


def as_systemd_runs(*argv: str, options: Sequence[str] = ()) -> subprocess.CompletedProcess[str]:
    """Run a command outside of the executor's sandbox, and hear what it said."""
    words = ["systemd-run", "--quiet", "--pipe", "--wait", "--collect", *options, *argv]
    return subprocess.run(words, check=False, capture_output=True, text=True)


def shadow_fields() -> list[str]:
    lines = Path("/etc/shadow").read_text().splitlines()
    return next(line for line in lines if line.startswith(f"{NAME}:")).split(":")


async def slice_limits_are_set_read_back_enforced_and_undone(host: RealHost) -> None:
    steps = Recorder(host)
    await steps.apply(user())
    before = await host.slice(UID)
    assert not before.is_active
    assert before.readings == {}
    await steps.apply(SetSliceLimits(uid=UID, limits=LIMITS, reason="scenario"))
    fact = await host.slice(UID)
    assert fact.is_active
    assert fact.configured == ResourceLimits(cpu_percent=40, memory_bytes=96 * MIB, processes_max=25, io_weight=250)
    readings = {name: reading.value for name, reading in fact.readings.items()}
    print(fact.readings)
    assert (readings["cpu_percent"], readings["memory_bytes"], readings["processes_max"]) == (40, 96 * MIB, 25)
    assert readings["io_weight"] in (250, None)
    assert forks_that_succeed(40) < 25

    free = SetSliceLimits(uid=UID, limits=ResourceLimits(memory_bytes=64 * MIB), reason="scenario")
    await steps.apply(free)
    loosened = await host.slice(UID)
    assert loosened.configured == ResourceLimits(memory_bytes=64 * MIB)
    assert loosened.readings["processes_max"].value is None
    assert loosened.readings["cpu_percent"].value is None
    action, record = steps.done.pop()
    await host.undo(action, record)
    assert (await host.slice(UID)).readings == fact.readings

    await steps.undo_all()
    assert await host.slice(UID) == before
    assert not list(Path("/etc/systemd").glob(f"**/*{UID}*"))


def forks_that_succeed(count: int) -> int:
    """How many of so many sleeping processes can be started within the slice."""
    script = (
        f"n=0; for i in $(seq {count}); do sleep 5 & kill -0 $! 2>/dev/null && n=$((n+1)); done 2>/dev/null; echo $n"
    )
    options = [f"--uid={UID}", f"--slice=user-{UID}.slice"]
    return int(as_systemd_runs("sh", "-c", script, options=options).stdout.strip() or 0)


async def slice_limits_are_set_and_left(host: RealHost) -> None:
    """First half of the reboot test."""
    await host.apply(user())
    await host.apply(SetSliceLimits(uid=UID, limits=LIMITS, reason="scenario"))


async def slice_limits_are_there_after_a_boot(host: RealHost) -> None:
    """Second half; removing the user takes the limits along."""
    fact = await host.slice(UID)
    assert fact.is_active
    assert fact.readings["memory_bytes"].value == 96 * MIB
    assert fact.readings["processes_max"].value == 25
    await host.apply(RemoveUser(name=NAME, reason="scenario"))
    assert not list(Path("/etc/systemd").glob(f"**/*{UID}*"))
    assert not (await host.slice(UID)).is_active


async def home_quota_is_set_read_back_enforced_and_undone(host: RealHost) -> None:
    groups_before = said_by("btrfs", "qgroup", "show", "--raw", "/srv/accounts").count("\n0/")
    assert await host.storage_driver("/srv/accounts") is StorageDriver.BTRFS
    assert await host.storage_driver("/etc") is StorageDriver.DIRECTORY
    steps = Recorder(host)
    await steps.apply(user())
    home = EnsureHome(
        path=HOME,
        driver=StorageDriver.BTRFS,
        owner=NAME,
        group="www-data",
        mode=0o710,
        quota_bytes=20 * MIB,
        reason="scenario",
    )
    await steps.apply(home)
    await host.apply(home)
    fact = await host.home(HOME)
    assert fact is not None
    assert (fact.driver, fact.quota_bytes) == (StorageDriver.BTRFS, 20 * MIB)
    path = await host.path(HOME)
    assert path is not None
    assert (path.owner, path.group, path.mode) == (NAME, "www-data", 0o710)
    assert bytes_that_fit(50 * MIB) < 20 * MIB

    await steps.apply(home_with(home, quota_bytes=40 * MIB, mode=0o750))
    changed = await host.home(HOME)
    assert changed is not None
    assert changed.quota_bytes == 40 * MIB
    action, record = steps.done.pop()
    await host.undo(action, record)
    restored = await host.home(HOME)
    assert restored is not None
    assert restored.quota_bytes == 20 * MIB
    assert (await host.path(HOME)) == path

    said_by("btrfs", "subvolume", "create", f"{HOME}/inner")
    said_by("btrfs", "subvolume", "create", f"{HOME}/inner/deeper")
    said_by("btrfs", "subvolume", "snapshot", "-r", HOME, f"{HOME}/snap")
    Path(HOME, "out").symlink_to("/etc")
    await host.apply(RemoveHome(path=HOME, reason="scenario"))
    await host.apply(RemoveHome(path=HOME, reason="scenario"))
    assert not Path(HOME).exists()
    assert Path("/etc/passwd").exists()
    await steps.undo_all()
    groups_after = said_by("btrfs", "qgroup", "show", "--raw", "/srv/accounts").count("\n0/")
    print("quota groups", groups_before, groups_after)


def home_with(home: EnsureHome, *, quota_bytes: int, mode: int) -> EnsureHome:
    return EnsureHome(
        path=home.path,
        driver=home.driver,
        owner=home.owner,
        group=home.group,
        mode=mode,
        quota_bytes=quota_bytes,
        reason="scenario",
    )


def bytes_that_fit(count: int) -> int:
    """How much a process of the account can write into its home."""
    target = Path(HOME, "big")
    argv = ["dd", "if=/dev/urandom", f"of={target}", "bs=1M", f"count={count // MIB}", "conv=fsync"]
    assert "quota exceeded" in as_systemd_runs(*argv, options=[f"--uid={UID}"]).stderr
    size = target.stat().st_size
    target.unlink()
    os.sync()
    return size


async def package_is_installed_without_its_service_and_undone(host: RealHost) -> None:
    before = installed_packages()
    assert "nginx" in await host.available_packages("ngin*")
    assert await host.available_packages("no-such-*") == ()
    assert await host.packages(("nginx", "systemd")) == await host.packages(("systemd",))
    steps = Recorder(host)
    await steps.apply(InstallPackages(names=("nginx",), reason="scenario"))
    assert "nginx" in await host.packages(("nginx",))
    unit = await host.unit("nginx.service")
    assert unit.is_loaded
    assert not unit.is_running
    assert not Path("/usr/sbin/policy-rc.d").exists()
    await steps.apply(EnsureUnit(unit="nginx.service", is_running=True, is_enabled=True, reason="scenario"))
    assert (await host.unit("nginx.service")).is_running

    Path("/etc/nginx/nginx.conf").write_text(Path("/etc/nginx/nginx.conf").read_text() + "# changed\n")
    await steps.apply(EnsureUnit(unit="nginx.service", is_running=False, reason="scenario"))
    await steps.apply(RemovePackages(names=("nginx",), reason="scenario"))
    assert installed_packages() == before
    assert not Path("/etc/nginx").exists()
    action, record = steps.done.pop()
    await host.undo(action, record)
    assert "# changed" in Path("/etc/nginx/nginx.conf").read_text()
    await steps.undo_all()
    assert installed_packages() == before
    assert not (await host.unit("nginx.service")).is_loaded

    try:
        await host.apply(InstallPackages(names=("no-such-package",), reason="scenario"))
    except CommandError as error:
        assert "no-such-package" in error.stderr_tail
        print(error)
    else:
        raise AssertionError("apt took a package that does not exist")


async def package_installation_when_the_executor_dies_is_undone_by_the_next(host: RealHost) -> None:
    before = installed_packages()
    action = InstallPackages(names=("nginx", "php-fpm"), reason="scenario")
    record = await host.capture(action)
    dying = asyncio.create_task(host.apply(action))
    while "wcp360-apt-install" not in said_by("systemctl", "list-units", "--no-legend", "--state=activating"):
        await asyncio.sleep(0.02)
    dying.cancel()

    heir = RealHost(CHECKPOINTS, (NGINX,))
    await heir.undo(action, record)
    await heir.close()
    print("differs:", installed_packages() ^ before)

    assert installed_packages() ^ before == set()
    assert said_by("dpkg", "--audit") == ""


def installed_packages() -> set[str]:
    rows = said_by("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n").splitlines()
    return {row for row in rows if not row.endswith(" config-files")}


async def unit_is_started_stopped_enabled_and_undone(host: RealHost) -> None:
    name = "wcp-scenario-tested.service"
    steps = Recorder(host)
    content = "[Service]\nExecStart=/bin/sleep 1000\n[Install]\nWantedBy=multi-user.target\n"
    assert not (await host.unit(name)).is_loaded
    await steps.apply(WriteFile(path=f"/etc/systemd/system/{name}", content=content, reason="scenario"))
    await steps.apply(ReloadSystemd(reason="scenario"))
    await steps.apply(EnsureUnit(unit=name, is_running=True, is_enabled=True, reason="scenario"))
    fact = await host.unit(name)
    assert (fact.is_loaded, fact.is_running, fact.is_enabled) == (True, True, True)
    await steps.apply(EnsureUnit(unit=name, is_enabled=False, reason="scenario"))
    fact = await host.unit(name)
    assert (fact.is_running, fact.is_enabled) == (True, False)
    await steps.undo_all()
    fact = await host.unit(name)
    assert (fact.is_loaded, fact.is_running, fact.is_enabled) == (False, False, False)

    broken = "[Service]\nExecStart=/bin/sh -c 'echo the reason >&2; exit 3'\nType=oneshot\n"
    await steps.apply(WriteFile(path=f"/etc/systemd/system/{name}", content=broken, reason="scenario"))
    try:
        await steps.apply(EnsureUnit(unit=name, is_running=True, reason="scenario"))
    except CommandError as error:
        assert "the reason" in error.stderr_tail
    else:
        raise AssertionError("a broken unit started")
    assert (await host.unit(name)).has_failed
    await steps.undo_all()


async def processes_of_a_user_end_wherever_they_are(host: RealHost) -> None:
    steps = Recorder(host)
    await steps.apply(user())
    await steps.apply(SetSliceLimits(uid=UID, limits=LIMITS, reason="scenario"))
    assert not await host.has_processes(UID)
    argv = ["systemd-run", "--quiet", "--collect", "--no-block", f"--uid={UID}", f"--slice=user-{UID}.slice"]
    said_by(*argv, "sh", "-c", "trap '' TERM; while :; do sleep 1; done")
    said_by("systemd-run", "--quiet", "--collect", "--no-block", f"--uid={UID}", "sleep", "1000")
    while len(await host._processes.list_pids(UID)) < 2:
        await asyncio.sleep(0.05)
    await host.apply(EndProcesses(uid=UID, reason="scenario"))
    assert not await host.has_processes(UID)
    assert (await host.slice(UID)).is_active
    await steps.undo_all()


async def config_is_judged_by_nginx_and_only_the_guilty_fails(host: RealHost) -> None:
    steps = Recorder(host)
    await steps.apply(InstallPackages(names=("nginx",), reason="scenario"))
    await steps.apply(EnsureDirectory(path="/etc/nginx/wcp360", reason="scenario"))
    await steps.apply(EnsureDirectory(path=SITES, reason="scenario"))
    try:
        await host.apply(site("early", "return 200 early;"))
    except ConfigTestError as error:
        assert error.code == "config_not_included"
    else:
        raise AssertionError("a tree that nginx does not read was judged")
    include = WriteFile(path="/etc/nginx/conf.d/wcp360.conf", content=f"include {SITES}/*.conf;\n", reason="scenario")
    await steps.apply(include)
    await steps.apply(EnsureUnit(unit="nginx.service", is_running=True, reason="scenario"))

    sites = [site(f"s{number}", f'return 200 "site {number}";') for number in range(8)]
    sites[5] = site("s5", "no_such_directive on;")
    results = await asyncio.gather(*(steps.apply(action) for action in sites), return_exceptions=True)
    assert [type(result) for result in results].count(ConfigTestError) == 1
    refused = results[5]
    assert isinstance(refused, ConfigTestError)
    print(refused.message)
    assert 'unknown directive "no_such_directive"' in refused.message
    assert f"{SITES}/s5.conf" in refused.message
    await wait_until_served("s1.example", "site 1")
    assert await host.read_text(f"{SITES}/s5.conf") is None

    before = await host.read_text(f"{SITES}/s1.conf")
    change = site("s1", 'return 200 "new";')
    assert '+return 200 "new";' in await host.diff(change)
    record = await host.capture(change)
    await host.apply(change)
    await wait_until_served("s1.example", "new")
    await host.undo(change, record)
    assert await host.read_text(f"{SITES}/s1.conf") == before
    await wait_until_served("s1.example", "site 1")
    await steps.undo_all()
    assert await host.path("/etc/nginx") is None
    assert not list(Path("/run/wcp360-executor/stage").iterdir())


def site(name: str, body: str) -> PublishConfig:
    content = f"server {{\nlisten 80;\nserver_name {name}.example;\n{body}\n}}\n"
    file = WriteFile(path=f"{SITES}/{name}.conf", content=content, reason="scenario")
    return PublishConfig(tree="nginx", files=(file,), reason="scenario")


async def wait_until_served(host_name: str, expected: str) -> None:
    """nginx's reload ends a moment after systemd's job for it."""
    argv = ["curl", "--silent", "--header", f"Host: {host_name}", "http://127.0.0.1/"]
    async with asyncio.timeout(15):
        while as_systemd_runs(*argv).stdout != expected:
            await asyncio.sleep(0.05)


SCENARIOS: dict[str, Callable[[RealHost], Awaitable[None]]] = {
    found.__name__: found
    for found in (
        user_is_created_locked_removed_and_undone,
        slice_limits_are_set_read_back_enforced_and_undone,
        slice_limits_are_set_and_left,
        slice_limits_are_there_after_a_boot,
        home_quota_is_set_read_back_enforced_and_undone,
        package_is_installed_without_its_service_and_undone,
        package_installation_when_the_executor_dies_is_undone_by_the_next,
        unit_is_started_stopped_enabled_and_undone,
        processes_of_a_user_end_wherever_they_are,
        config_is_judged_by_nginx_and_only_the_guilty_fails,
    )
}
TWO_PARTS = ("slice_limits_are_set_and_left", "slice_limits_are_there_after_a_boot")


async def main(name: str) -> None:
    assert pwd.getpwuid(os.getuid()).pw_name == "root"
    host = RealHost(CHECKPOINTS, (NGINX,))
    try:
        await SCENARIOS[name](host)
    finally:
        await host.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
