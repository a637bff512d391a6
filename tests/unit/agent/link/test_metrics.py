"""Samples of accounts in both cgroup hierarchies, and of this machine."""

from __future__ import annotations

from pathlib import Path

from agent.link.metrics import sample_accounts, sample_node
from agent.link.settings import NodePaths

NAMES = {20001: "alice", 20002: "bob"}


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def test_accounts_in_the_unified_hierarchy(tmp_path: Path) -> None:
    write(tmp_path / "cgroup.controllers", "cpu memory pids")
    folder = tmp_path / "user.slice/user-20001.slice"
    write(folder / "memory.current", "1048576\n")
    write(folder / "pids.current", "3\n")
    write(folder / "cpu.stat", "usage_usec 2500000\nuser_usec 1\n")

    assert sample_accounts(tmp_path, NAMES.get) == {
        "accounts.alice.memory_bytes": 1048576.0,
        "accounts.alice.processes": 3.0,
        "accounts.alice.cpu_seconds": 2.5,
    }


def test_accounts_in_the_legacy_hierarchy(tmp_path: Path) -> None:
    for controller, name, value in (
        ("memory", "memory.usage_in_bytes", "4096"),
        ("pids", "pids.current", "1"),
        ("cpuacct", "cpuacct.usage", "1500000000"),
    ):
        write(tmp_path / controller / "user.slice/user-20002.slice" / name, value)

    assert sample_accounts(tmp_path, NAMES.get) == {
        "accounts.bob.memory_bytes": 4096.0,
        "accounts.bob.processes": 1.0,
        "accounts.bob.cpu_seconds": 1.5,
    }


def test_accounts_when_slice_is_of_an_administrator_or_unknown_are_left_out(tmp_path: Path) -> None:
    write(tmp_path / "cgroup.controllers", "")
    for uid in (0, 1000, 20003):
        write(tmp_path / f"user.slice/user-{uid}.slice/memory.current", "1")

    assert sample_accounts(tmp_path, NAMES.get) == {}


def test_accounts_when_nothing_is_readable_are_empty(tmp_path: Path) -> None:
    assert sample_accounts(tmp_path / "missing", NAMES.get) == {}


def test_node_has_the_gauges_that_the_controller_shows() -> None:
    gauges = sample_node(NodePaths())

    assert {"cpu_percent", "load_1", "memory_total_bytes", "memory_used_bytes", "disk_root_total_bytes"} <= set(gauges)
    assert 0 < gauges["memory_used_bytes"] < gauges["memory_total_bytes"]
