"""The pure parts of the lab: nothing here needs root, a network or a node."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest
from wcplab import apt_host, cgroups, cli, files, launch, locks, mounts, network, paths, process, recipe, state
from wcplab.boot import launcher_argv, nspawn_argv
from wcplab.disks import NodeDisk, replace_text
from wcplab.errors import CannotBootError, LabError, UsageError
from wcplab.lab import Lab, plan_nodes, require_same
from wcplab.node import NodeStatus
from wcplab.state import LabDefinition, NodeDefinition

NODE = NodeDefinition("run-1", 1, "bookworm", "btrfs", "bookworm-0123")

# --- recipe -----------------------------------------------------------------------------------------------------------


def test_hash_recipe_same_input_gives_same_key():
    contents = [("packages/base.txt", b"systemd\n"), ("node-files/init", b"#!/bin/sh\n")]

    assert recipe.hash_recipe("bookworm", contents) == recipe.hash_recipe("bookworm", contents)


@pytest.mark.parametrize(
    ("suite", "contents"),
    [
        ("trixie", [("a", b"1"), ("b", b"2")]),
        ("bookworm", [("a", b"1"), ("b", b"3")]),
        ("bookworm", [("a", b"1"), ("c", b"2")]),
        ("bookworm", [("a", b"1")]),
        ("bookworm", [("a", b"1b2")]),
        ("bookworm", [("b", b"2"), ("a", b"1")]),
    ],
)
def test_hash_recipe_any_difference_gives_another_key(suite, contents):
    assert recipe.hash_recipe(suite, contents) != recipe.hash_recipe("bookworm", [("a", b"1"), ("b", b"2")])


def test_recipe_files_cover_lists_node_files_and_code():
    names = {path.name for path in recipe.recipe_files()}

    assert {"base.txt", "offline.txt", "init", "wcp-lab-network.service", "recipe.py", "image_build.py"} <= names


def test_image_key_names_its_suite():
    assert re.fullmatch(r"trixie-[0-9a-f]{12}", recipe.image_key("trixie"))


def test_parse_packages_groups_comments_and_suites():
    text = "# title\nsystemd  # init\n\n[web]\nnginx\nphp8.2-fpm [bookworm]  # old\nphp8.4-fpm [trixie]\n"

    assert recipe.parse_packages(text, "trixie") == {"": ["systemd"], "web": ["nginx", "php8.4-fpm"]}


@pytest.mark.parametrize("suite", recipe.SUITES)
def test_offline_packages_hold_what_modules_install(suite):
    offline = {name for group in recipe.read_packages("offline", suite).values() for name in group}

    assert {
        "python3",
        "nginx",
        "php-fpm",
        "mariadb-server",
        "postgresql",
        "postfix",
        "pdns-server",
        "restic",
    } <= offline


@pytest.mark.parametrize("suite", recipe.SUITES)
def test_base_packages_leave_out_what_installers_must_bring(suite):
    base = {name for group in recipe.read_packages("base", suite).values() for name in group}

    assert not base & {"python3", "nginx", "sudo"}


def test_require_suite_unknown_names_the_known_ones():
    with pytest.raises(UsageError, match="sid") as caught:
        recipe.require_suite("sid")

    assert "bookworm" in caught.value.hint


# --- this machine's apt -----------------------------------------------------------------------------------------------

DEB822 = """\
Types: deb
# a comment inside
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security/
Suites: bookworm-security bookworm-backports
Components:
 main

Types: deb
URIs: https://vendor.example/php
Suites: bookworm
Components: main

Types: deb-src
URIs: http://mirror.example/debian
Suites: bookworm
Components: main

Types: deb
Enabled: no
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


def test_source_lines_keep_debian_and_replace_the_release():
    lines = apt_host.source_lines(apt_host.parse_deb822(DEB822), host_codename="bookworm", suite="trixie")

    keyring = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] "
    assert lines == [
        f"deb {keyring}http://mirror.example/debian trixie main",
        f"deb {keyring}http://mirror.example/debian trixie-updates main",
        "deb http://mirror.example/debian-security/ trixie-security main",
    ]


def test_parse_one_line_reads_options_and_skips_comments():
    text = "# deb http://no/debian sid main\ndeb [arch=amd64 signed-by=/k.gpg] http://m/debian trixie main # why\ndeb-src x y z\n"

    assert apt_host.parse_one_line(text) == [apt_host.AptSource(("http://m/debian",), ("trixie",), ("main",), "/k.gpg")]


def test_source_lines_nothing_found_falls_back_to_debian():
    assert apt_host.source_lines([], host_codename="noble", suite="trixie") == apt_host.default_lines("trixie")


def test_choose_options_keeps_only_what_fetching_needs():
    dump = [
        'Acquire::http::Proxy "http://proxy.example:3128";',
        'Acquire::http::Proxy-Auto-Detect "/usr/bin/auto";',
        'Acquire::https::Verify-Peer "";',
        'Acquire::Retries "3";',
        'Acquire::Languages "none";',
        'DPkg::Post-Invoke:: "rm -rf x";',
    ]

    assert apt_host.choose_options(dump) == [dump[0], dump[3]]


# --- network ----------------------------------------------------------------------------------------------------------


def test_choose_subnet_same_name_gets_the_same_one():
    assert network.choose_subnet("run", []) == network.choose_subnet("run", [])


def test_choose_subnet_taken_takes_the_next_free_one():
    first = network.choose_subnet("run", [])

    second = network.choose_subnet("run", [first])

    assert second != first
    assert network.FIRST_SUBNET <= second <= network.LAST_SUBNET


def test_choose_subnet_all_taken_raises():
    with pytest.raises(LabError, match="taken"):
        network.choose_subnet("run", range(256))


def test_parse_used_subnets_reads_routes_of_every_width():
    routes = [
        {"dst": "default"},
        {"dst": "10.86.7.0/24"},
        {"dst": "10.86.9.4"},
        {"dst": "10.86.16.0/23"},
        {"dst": "192.0.2.0/24"},
        {"dst": "0.0.0.0/0"},
    ]

    assert network.parse_used_subnets(json.dumps(routes)) == {7, 9, 16, 17}


def test_parse_used_subnets_wide_route_takes_all():
    used = network.parse_used_subnets('[{"dst": "10.0.0.0/8"}]')

    assert set(range(network.FIRST_SUBNET, network.LAST_SUBNET + 1)) <= used


def test_device_names_fit_the_kernels_limit():
    names = [network.bridge_name(254), network.link_name(254, network.MAX_NODES)]

    assert max(len(name) for name in names) <= 15


def test_node_addresses_start_at_eleven_and_stay_in_the_subnet():
    assert network.node_address(7, 1) == "10.86.7.11"
    assert network.node_address(7, network.MAX_NODES) == "10.86.7.210"


# --- mounts and cgroups -----------------------------------------------------------------------------------------------

MOUNTINFO = (
    "26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n"
    "40 26 0:30 / /var/lib/with\\040blank rw shared:9 master:2 - overlay wcp-lab rw,lowerdir=/c/a/root:/c/b,upperdir=/u\n"
    "50 26 0:31 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "51 26 0:32 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n"
    "52 26 0:33 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset\n"
    "53 26 0:34 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n"
    "54 26 0:35 / /srv/box/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"
    "garbage\n"
)


def test_parse_mountinfo_handles_optional_fields_and_escapes():
    found = mounts.parse_mountinfo(MOUNTINFO)

    assert len(found) == 7
    assert found[1].mount_point == Path("/var/lib/with blank")
    assert found[1].overlay_layers == (Path("/c/a/root"), Path("/c/b"))
    assert found[0].overlay_layers == ()


def test_choose_hierarchies_identifying_tree_first_and_cpuset_never():
    found = cgroups.choose_hierarchies(mounts.parse_mountinfo(MOUNTINFO))

    assert [(str(h.root), h.version) for h in found] == [
        ("/sys/fs/cgroup/pids", 1),
        ("/sys/fs/cgroup/cpu", 1),
        ("/sys/fs/cgroup/unified", 2),
    ]


def test_parse_membership_reads_v1_and_v2_lines():
    text = "9:name=systemd:/a/b\n1:cpu,cpuacct:/\n0::/a:c\n"

    assert cgroups.parse_membership(text) == {"name=systemd": "/a/b", "cpu,cpuacct": "/", "": "/a:c"}


def test_find_leader_of_processes_outside_any_namespace_is_none():
    assert cgroups.find_leader([os.getpid()]) is None


def test_read_stat_fields_of_a_dead_process_is_empty():
    assert cgroups.read_stat_fields(2**22 + 1) == []
    assert cgroups.read_state(os.getpid()) in {"R", "S"}


# --- definitions ------------------------------------------------------------------------------------------------------


def test_state_round_trip_keeps_everything():
    definition = LabDefinition("run", 7, (NODE,))

    assert state.parse(state.render(definition)) == definition


@pytest.mark.parametrize("text", ["", "{}", '{"nodes": 3}', '{"name": "x", "subnet": 1, "nodes": [{}]}'])
def test_state_parse_garbage_raises_with_a_hint(text):
    with pytest.raises(LabError) as caught:
        state.parse(text)

    assert caught.value.hint


def test_with_node_replaces_by_number():
    fresh = NodeDefinition("run-1", 1, "bookworm", "btrfs", "bookworm-9999")

    assert LabDefinition("run", 7, (NODE,)).with_node(fresh).nodes == (fresh,)


def test_plan_nodes_repeats_suites():
    planned = plan_nodes("run", 3, ["bookworm", "trixie"], "plain")

    assert [(node.name, node.suite) for node in planned] == [
        ("run-1", "bookworm"),
        ("run-2", "trixie"),
        ("run-3", "bookworm"),
    ]


@pytest.mark.parametrize(
    ("count", "suites", "storage"), [(0, ["trixie"], "btrfs"), (1, ["sid"], "btrfs"), (1, ["trixie"], "zfs")]
)
def test_plan_nodes_impossible_wish_raises(count, suites, storage):
    with pytest.raises(UsageError):
        plan_nodes("run", count, suites, storage)


def test_require_same_other_suite_asked_for_raises():
    wanted = plan_nodes("run", 1, ["trixie"], "btrfs")

    with pytest.raises(LabError, match="bookworm"):
        require_same(wanted, {1: NODE}, has_suites=True, has_storage=False)


def test_require_same_nothing_asked_for_takes_what_is_there():
    require_same(plan_nodes("run", 1, ["trixie"], "plain"), {1: NODE}, has_suites=False, has_storage=False)


@pytest.mark.parametrize("name", ["", "Run", "1a", "a/b", "..", "a" * 31])
def test_lab_bad_name_raises(name):
    with pytest.raises(UsageError):
        Lab(name)


def test_lab_of_node_reads_the_lab_out_of_the_name():
    assert paths.lab_of_node("my-lab-12") == "my-lab"
    with pytest.raises(UsageError):
        paths.lab_of_node("run")


def test_lab_unknown_has_no_status_and_a_helpful_error(tmp_path, monkeypatch):
    monkeypatch.setenv("WCP_LAB_STATE", str(tmp_path))

    assert Lab("ghost").status() == []
    with pytest.raises(LabError) as caught:
        _ = Lab("ghost").nodes
    assert "wcp-lab up --lab ghost" in caught.value.hint


# --- command lines ----------------------------------------------------------------------------------------------------


def test_nspawn_argv_btrfs_storage_binds_the_volume():
    argv = nspawn_argv(NODE, 7, NodeDisk(Path("/d")))

    assert "--bind=/d/accounts:/srv/accounts" in argv
    assert {"--machine=w7n1", "--hostname=run-1", "--network-bridge=wcplab7", "--directory=/d/root"} <= set(argv)


def test_nspawn_argv_plain_storage_binds_nothing():
    plain = NodeDefinition("run-1", 1, "bookworm", "plain", "bookworm-0123")

    assert not [word for word in nspawn_argv(plain, 7, NodeDisk(Path("/d"))) if word.startswith("--bind")]


def test_launcher_argv_ends_with_the_program_unchanged():
    argv = launcher_argv([Path("/c")], ["echo", "--", "a b"], keeper=[Path("/k")])

    assert argv[-4:] == ["--", "echo", "--", "a b"]
    assert argv[argv.index("--keeper") + 1] == "/k"


def test_launch_keep_starts_again_as_long_as_the_program_reboots(tmp_path):
    counter = tmp_path / "count"
    script = f"echo x >> {counter}; test $(wc -l < {counter}) -ge 3 && exit 7; exit {launch.REBOOT_EXIT_CODE}"

    assert launch.keep([], ["sh", "-c", script]) == 7
    assert counter.read_text() == "x\nx\nx\n"


def test_parser_shell_keeps_the_commands_own_options():
    parsed = cli.build_parser().parse_args(["shell", "run-1", "--", "ls", "-la", "--", "x"])

    assert parsed.node == "run-1"
    assert cli.without_separator(parsed.argv) == ["ls", "-la", "--", "x"]


def test_parser_up_defaults_leave_existing_nodes_alone():
    parsed = cli.build_parser().parse_args(["up"])

    assert (parsed.lab, parsed.nodes, parsed.suites, parsed.storage) == ("run", 2, None, None)


def test_parser_up_reads_a_list_of_suites():
    parsed = cli.build_parser().parse_args(["up", "--lab", "test", "--nodes", "3", "--suites", "bookworm,trixie"])

    assert parsed.suites == ["bookworm", "trixie"]


def test_render_status_says_when_the_cable_is_out():
    status = NodeStatus("run-1", "trixie", "10.86.7.11", "running", is_cut=True, leader_pid=42, uptime_seconds=3.4)

    assert cli.render_status(status).split() == [
        "run-1",
        "trixie",
        "10.86.7.11",
        "running,",
        "cut",
        "up",
        "3",
        "s,",
        "pid",
        "42",
    ]


def test_main_error_prints_hint_and_returns_its_code(capsys, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert cli.main(["up"]) == CannotBootError.exit_code == 3
    assert "hint: " in capsys.readouterr().err


# --- processes, locks, files ------------------------------------------------------------------------------------------


def test_run_gives_a_clean_environment(monkeypatch):
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "x")

    done = process.run(["env"], timeout_seconds=10)

    assert "SECRET" not in done.stdout
    assert "LANG=C.UTF-8" in done.stdout


def test_run_too_slow_ends_the_children_too():
    done = process.run(["sh", "-c", "sleep 60 & wait"], timeout_seconds=0.2)

    assert done.exit_code == process.TIMEOUT_EXIT_CODE
    assert "0.2 seconds" in done.stderr


def test_check_failure_shows_a_line_to_paste_and_the_output():
    with pytest.raises(LabError, match=r"`sh -c 'echo no >&2; exit 3'` ended with 3: no"):
        process.run(["sh", "-c", "echo no >&2; exit 3"], timeout_seconds=10).check()


def test_locked_second_holder_is_told(tmp_path):
    path = tmp_path / "a.lock"

    with (
        locks.locked(path, timeout_seconds=1),
        pytest.raises(LabError, match=r"a\.lock"),
        locks.locked(path, timeout_seconds=0.1),
    ):
        pass


def test_pack_and_unpack_keep_names_modes_and_content(tmp_path):
    source = tmp_path / "src"
    (source / "sub").mkdir(parents=True)
    (source / "sub/tool").write_text("#!/bin/sh\n")
    (source / "sub/tool").chmod(0o750)

    files.unpack(files.pack(source, "other"), "other", tmp_path / "out/copy")

    tool = tmp_path / "out/copy/sub/tool"
    assert tool.read_text() == "#!/bin/sh\n"
    assert tool.stat().st_mode & 0o777 == 0o750


def test_replace_text_never_follows_a_link_out_of_the_node(tmp_path):
    outside = tmp_path / "outside"
    outside.write_text("precious")
    (tmp_path / "link").symlink_to(outside)

    replace_text(tmp_path / "link", "new")

    assert outside.read_text() == "precious"
    assert (tmp_path / "link").read_text() == "new"
