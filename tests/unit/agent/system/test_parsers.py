"""Parsers of what Debian 12 and 13 really print (taken from booted nodes)."""

from __future__ import annotations

import pytest

from agent.contract.facts import LimitReading
from agent.system import cgroups, packages, processes, storage, users
from agent.system.cgroups import Hierarchies
from shared.errors import InvalidInputError

PASSWD = """\
root:x:0:0:root:/root:/bin/bash
www-data:x:33:33:www-data:/var/www:/usr/sbin/nologin
+nis
shop:x:20001:20001::/srv/accounts/shop:/usr/sbin/nologin
"""
SHADOW = """\
root:*:20779:0:99999:7:::
shop:!*:20779:0:99999:7::1:
free:*:20779:0:99999:7:::
later:*:20779:0:99999:7::30000:
"""
MOUNTS_HYBRID = """\
367 520 0:106 / /sys/fs/cgroup ro,nosuid,nodev,noexec shared:191 - tmpfs tmpfs ro,size=4096k,nr_inodes=1024,mode=755
381 367 0:30 / /sys/fs/cgroup/cpuacct rw,nosuid,nodev,noexec,relatime shared:193 - cgroup cgroup rw,cpuacct
382 367 0:36 / /sys/fs/cgroup/pids rw,nosuid,nodev,noexec,relatime shared:194 - cgroup cgroup rw,pids
383 367 0:32 / /sys/fs/cgroup/memory rw,nosuid,nodev,noexec,relatime shared:195 - cgroup cgroup rw,memory
384 367 0:29 / /sys/fs/cgroup/cpu rw,nosuid,nodev,noexec,relatime shared:196 - cgroup cgroup rw,cpu
447 367 0:38 / /sys/fs/cgroup/unified rw,nosuid,nodev,noexec,relatime shared:201 - cgroup2 cgroup rw
449 367 0:37 / /sys/fs/cgroup/systemd rw,nosuid,nodev,noexec,relatime shared:203 - cgroup cgroup rw,name=systemd
500 367 0:44 / /srv/accounts rw,noatime - btrfs /dev/loop3 rw,discard=async,space_cache=v2,subvolid=5,subvol=/
"""
MOUNTS_UNIFIED = (
    "30 23 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
)
QGROUPS_BTRFS_6_2 = """\
Qgroupid    Referenced    Exclusive  Max referenced  Max exclusive   Path
--------    ----------    ---------  --------------  -------------   ----
0/5              16384        16384            none           none   <toplevel>
0/256         20955136     20955136        20971520           none   shop
0/257            16384        16384            none           none   <stale>
1/100            16384        16384            none           none   <0 member qgroups>
"""
SIMULATED = """\
Reading package lists...
Inst libc6 [2.36-9+deb12u10] (2.36-9+deb12u13 Debian:12.12/oldstable [amd64])
Inst nginx-common (1.22.1-9+deb12u11 localhost [all])
Inst nginx:amd64 (1.22.1-9+deb12u11 localhost [amd64])
Conf nginx-common (1.22.1-9+deb12u11 localhost [all])
Purg media-types [10.0.0]
Remv old [1.0]
"""
POLICY = """\
php8.2-fpm:
  Installed: (none)
  Candidate: 8.2.36-1~deb12u1
  Version table:
     8.2.36-1~deb12u1 500
        500 file:/var/lib/wcp-lab/repo ./ Packages
php-virtual:
  Installed: (none)
  Candidate: (none)
  Version table:
cron:
  Installed: 3.0pl1-162
  Candidate: 3.0pl1-162
"""


def test_parse_passwd_when_a_line_is_damaged_leaves_it_out() -> None:
    entries = users.parse_passwd(PASSWD)

    assert set(entries) == {"root", "www-data", "shop"}
    assert (entries["shop"].uid, entries["shop"].home) == (20001, "/srv/accounts/shop")


@pytest.mark.parametrize(("name", "is_locked"), [("shop", True), ("free", False), ("later", False), ("absent", False)])
def test_user_fact_when_account_expired_in_1970_is_locked(name: str, *, is_locked: bool) -> None:
    entry = users.parse_passwd(PASSWD)["shop"]

    assert users.fact_of(entry, users.parse_shadow(SHADOW).get(name)).is_locked is is_locked


def test_usermod_when_locking_expires_the_account_and_when_unlocking_clears_it() -> None:
    free = users.fact_of(users.parse_passwd(PASSWD)["shop"], None)
    locked = users.fact_of(users.parse_passwd(PASSWD)["shop"], users.parse_shadow(SHADOW)["shop"])

    assert users.usermod_argv(free, free) is None
    assert users.usermod_argv(free, locked) == ("usermod", "--lock", "--expiredate", "1", "--", "shop")
    assert users.usermod_argv(locked, free) == ("usermod", "--unlock", "--expiredate", "", "--", "shop")


def test_memberships_when_parsed_are_the_groups_that_name_the_user_whole() -> None:
    text = "shop:x:20001:\nwcp-tenants:x:990:alice,shop\nadm:x:4:workshop,shop2\nbackup:x:34:shop\nbroken:shop\n"

    assert users.parse_memberships(text, "shop") == ("backup", "wcp-tenants")
    assert users.parse_memberships(text, "sho") == ()


def test_groups_when_wanted_are_given_whole_and_taken_back_whole() -> None:
    entry = users.parse_passwd(PASSWD)["shop"]
    outside, inside = users.fact_of(entry, None), users.fact_of(entry, None, ("backup", "wcp-tenants"))

    assert users.usermod_argv(outside, inside) == ("usermod", "--groups", "backup,wcp-tenants", "--", "shop")
    assert users.usermod_argv(inside, outside) == ("usermod", "--groups", "", "--", "shop")
    assert "--groups" not in users.useradd_argv(outside)
    assert users.useradd_argv(inside)[users.useradd_argv(inside).index("--groups") + 1] == "backup,wcp-tenants"


def test_useradd_when_building_arguments_copies_no_skeleton_and_fixes_ids() -> None:
    argv = users.useradd_argv(users.fact_of(users.parse_passwd(PASSWD)["shop"], None))

    assert "--no-create-home" in argv
    assert argv[argv.index("--uid") + 1] == argv[argv.index("--gid") + 1] == "20001"
    assert argv[-2:] == ("--", "shop")


def test_parse_hierarchies_when_host_is_hybrid_finds_controllers_in_v1() -> None:
    found = cgroups.parse_hierarchies(MOUNTS_HYBRID)

    assert found.unified == "/sys/fs/cgroup/unified"
    assert found.controllers["memory"] == "/sys/fs/cgroup/memory"
    assert found.controllers["name=systemd"] == "/sys/fs/cgroup/systemd"


def test_parse_hierarchies_when_host_is_unified_has_no_v1_controller() -> None:
    assert cgroups.parse_hierarchies(MOUNTS_UNIFIED) == Hierarchies(unified="/sys/fs/cgroup", controllers={})


def write_files(folder: object, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = folder / name  # type: ignore[operator]  # a Path; the fixture says so
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


def test_read_limits_when_unified_reads_the_kernels_words(tmp_path: object) -> None:
    group = {"cpu.max": "20000 100000\n", "memory.max": "67108864\n", "pids.max": "max\n", "io.weight": "default 50\n"}
    write_files(tmp_path, {f"user.slice/{name}": content for name, content in group.items()})

    found = cgroups.read_limits(Hierarchies(unified=str(tmp_path), controllers={}), "/user.slice")

    values = {name: reading.value for name, reading in found.items()}
    assert values == {"cpu_percent": 20, "memory_bytes": 67108864, "processes_max": None, "io_weight": 50}
    assert found["memory_bytes"].source == f"{tmp_path}/user.slice/memory.max"


def test_read_limits_when_v1_reads_each_controllers_tree(tmp_path: object) -> None:
    files = {
        "cpu/s/cpu.cfs_quota_us": "40000\n",
        "cpu/s/cpu.cfs_period_us": "100000\n",
        "memory/s/memory.limit_in_bytes": "9223372036854771712\n",
        "pids/s/pids.max": "25\n",
        "blkio/s/tasks": "",
    }
    write_files(tmp_path, files)
    controllers = {name: f"{tmp_path}/{name}" for name in ("cpu", "memory", "pids", "blkio")}

    found = cgroups.read_limits(Hierarchies(unified=None, controllers=controllers), "/s")

    values = {name: reading.value for name, reading in found.items()}
    assert values == {"cpu_percent": 40, "memory_bytes": None, "processes_max": 25, "io_weight": None}
    missing = f"{tmp_path}/blkio/s/blkio.weight (not in this kernel)"
    assert found["io_weight"] == LimitReading(value=None, source=missing)


def test_read_limits_when_the_slice_has_no_cgroup_is_empty(tmp_path: object) -> None:
    hierarchies = Hierarchies(unified=str(tmp_path), controllers={})

    assert cgroups.read_limits(hierarchies, "/user.slice/user-20001.slice") == {}
    assert cgroups.read_limits(hierarchies, "") == {}


def test_parse_quota_groups_when_levels_and_stale_rows_are_shown_takes_subvolumes() -> None:
    groups = storage.parse_quota_groups(QGROUPS_BTRFS_6_2)

    assert set(groups) == {5, 256, 257}
    assert groups[256] == storage.QuotaGroup(referenced_bytes=20955136, limit_bytes=20971520)
    assert groups[5].limit_bytes is None


def test_parse_mount_types_when_read_names_the_file_system_of_each_mount() -> None:
    types = storage.parse_mount_types(MOUNTS_HYBRID)

    assert types[500] == "btrfs"
    assert types[447] == "cgroup2"


def test_parse_simulation_when_an_upgrade_is_included_counts_only_new_packages() -> None:
    assert packages.parse_new_packages(SIMULATED) == ("nginx-common", "nginx")
    assert packages.parse_simulation(SIMULATED, "Remv", "Purg") == ("media-types", "old")


def test_parse_candidates_when_a_name_is_virtual_leaves_it_out() -> None:
    assert packages.parse_candidates(POLICY) == ("php8.2-fpm", "cron")


def test_parse_installed_when_only_configuration_is_left_leaves_it_out() -> None:
    text = "cron\t3.0pl1-162\tinstalled\nnginx\t1.22.1\tconfig-files\n"

    assert packages.parse_installed(text) == {"cron": "3.0pl1-162"}


def test_parse_conffiles_when_one_is_obsolete_leaves_it_out() -> None:
    text = (
        " /etc/default/cron eae0d979b5007d2af41540d8c2631359\n"
        " /etc/old.conf eae0d979b5007d2af41540d8c2631350 obsolete\n"
        " /etc/new.conf newconffile\n"
    )

    assert packages.parse_conffiles(text) == {"/etc/default/cron": "eae0d979b5007d2af41540d8c2631359"}


@pytest.mark.parametrize("name", ["--purge", "nginx-", "g++", "nginx=1.0", "a b", "", "nginx/stable", "Ä"])
def test_require_names_when_apt_could_read_it_otherwise_refuses(name: str) -> None:
    with pytest.raises(InvalidInputError):
        packages.require_names((name,))


def test_parse_status_when_a_process_changed_its_user_shows_all_ids() -> None:
    state, uids = processes.parse_status("Name:\tx\nState:\tZ (zombie)\nUid:\t0\t20001\t0\t0\n")

    assert (state, uids) == ("Z", frozenset({0, 20001}))
