"""Samples of the node and of each account's slice. Reading only, and nothing that needs a privilege."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec
import psutil

from agent.link.settings import NodePaths
from shared.specs.account import MAX_TENANT_UID, MIN_TENANT_UID

_SLICE: Final = re.compile(r"user-(\d+)\.slice")
NANOSECONDS: Final = 1e9
MICROSECONDS: Final = 1e6


def sample_node(paths: NodePaths) -> dict[str, float]:
    """Gauges of the whole node. cpu_percent is the mean since the last call (0 at the first)."""
    memory = psutil.virtual_memory()
    load_1, load_5, load_15 = os.getloadavg()
    gauges = {
        "cpu_percent": psutil.cpu_percent(interval=None),
        "cpu_count": float(psutil.cpu_count() or 1),
        "load_1": load_1,
        "load_5": load_5,
        "load_15": load_15,
        "memory_total_bytes": float(memory.total),
        "memory_used_bytes": float(memory.total - memory.available),
        "uptime_seconds": time.time() - psutil.boot_time(),
    }
    for name, directory in (("root", paths.root), ("accounts", paths.accounts_dir)):
        gauges.update(_sample_disk(name, directory))
    network = psutil.net_io_counters()
    if network is not None:
        gauges["network_received_bytes"] = float(network.bytes_recv)
        gauges["network_sent_bytes"] = float(network.bytes_sent)
    return gauges


def _sample_disk(name: str, directory: Path) -> dict[str, float]:
    try:
        usage = psutil.disk_usage(str(directory))
    except OSError:
        return {}
    return {f"disk_{name}_total_bytes": float(usage.total), f"disk_{name}_used_bytes": float(usage.used)}


def sample_accounts(cgroup_root: Path, name_of_uid: Callable[[int], str | None] | None = None) -> dict[str, float]:
    """`accounts.NAME.{memory_bytes,cpu_seconds,processes}` of every tenant's slice that exists now.

    Knows both hierarchies: one tree (v2), and one tree for each controller (v1, seen in nodes on older hosts).
    """
    find_name = name_of_uid or _find_tenant_name
    gauges: dict[str, float] = {}
    is_unified = (cgroup_root / "cgroup.controllers").exists()
    for uid in _list_tenant_uids(cgroup_root if is_unified else cgroup_root / "memory"):
        name = find_name(uid)
        if name is None:
            continue
        slice_path = f"user.slice/user-{uid}.slice"
        usage = _read_unified(cgroup_root / slice_path) if is_unified else _read_legacy(cgroup_root, slice_path)
        gauges.update({f"accounts.{name}.{key}": value for key, value in usage.items()})
    return gauges


class SliceUse(msgspec.Struct, frozen=True, kw_only=True):
    """What one account's slice used of the processor."""

    uid: int
    slice_id: str
    """A slice that was made anew has another one."""
    seconds: float
    """Since it was made."""


def read_slices(
    cgroup_root: Path, boot_id: str, name_of_uid: Callable[[int], str | None] | None = None
) -> dict[str, SliceUse]:
    """Name of each account with a slice to what the slice used. `boot_id`: of this boot; inodes begin anew with it."""
    find_name = name_of_uid or _find_tenant_name
    is_unified = (cgroup_root / "cgroup.controllers").exists()
    tree = cgroup_root if is_unified else cgroup_root / "memory"
    found: dict[str, SliceUse] = {}
    for uid in _list_tenant_uids(tree):
        slice_path = f"user.slice/user-{uid}.slice"
        seconds = _read_processor(cgroup_root, slice_path)
        name = find_name(uid)
        if name is None or seconds is None:
            continue
        with contextlib.suppress(OSError):
            slice_id = f"{boot_id}:{(tree / slice_path).stat().st_ino}"
            found[name] = SliceUse(uid=uid, slice_id=slice_id, seconds=seconds)
    return found


def _read_processor(root: Path, slice_path: str) -> float | None:
    """Seconds, from the first tree that counts them.

    With one tree for each controller, systemd makes a slice's folder in cpuacct only when something below it asks for
    accounting; the one for processes alone (`unified`) counts always (Linux 4.20, cgroup-v2.rst: cpu.stat exists
    whether the controller is enabled or not).
    """
    seconds = _read_cpu_stat(root / slice_path)
    if seconds is None:
        counted = _read_number(root / "cpuacct" / slice_path / "cpuacct.usage")
        seconds = None if counted is None else counted / NANOSECONDS
    return _read_cpu_stat(root / "unified" / slice_path) if seconds is None else seconds


def _list_tenant_uids(tree: Path) -> list[int]:
    try:
        names = [entry.name for entry in (tree / "user.slice").iterdir()]
    except OSError:
        return []
    uids = (int(match.group(1)) for match in map(_SLICE.fullmatch, names) if match)
    return sorted(uid for uid in uids if MIN_TENANT_UID <= uid <= MAX_TENANT_UID)


def _read_unified(folder: Path) -> dict[str, float]:
    """Source: Linux Documentation/admin-guide/cgroup-v2.rst (memory.current, pids.current, cpu.stat usage_usec)."""
    usage = _present(
        memory_bytes=_read_number(folder / "memory.current"), processes=_read_number(folder / "pids.current")
    )
    return usage | _present(cpu_seconds=_read_cpu_stat(folder))


def _read_cpu_stat(folder: Path) -> float | None:
    with contextlib.suppress(OSError, ValueError):
        for line in (folder / "cpu.stat").read_text(encoding="ascii").splitlines():
            key, _, value = line.partition(" ")
            if key == "usage_usec":
                return int(value) / MICROSECONDS
    return None


def _read_legacy(root: Path, slice_path: str) -> dict[str, float]:
    """Source: Linux Documentation/admin-guide/cgroup-v1 (memory.rst, pids.rst, cpuacct.rst)."""
    return _present(
        memory_bytes=_read_number(root / "memory" / slice_path / "memory.usage_in_bytes"),
        processes=_read_number(root / "pids" / slice_path / "pids.current"),
        cpu_seconds=_read_processor(root, slice_path),
    )


def _present(**values: float | None) -> dict[str, float]:
    return {name: value for name, value in values.items() if value is not None}


def _read_number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _find_tenant_name(uid: int) -> str | None:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None
