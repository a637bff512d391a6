"""What the kernel really enforces: limits read back from cgroup v2 or v1, whichever the node's systemd uses."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.contract.facts import LimitReading

MOUNTINFO: Final = Path("/proc/self/mountinfo")

V1_UNLIMITED_BYTES: Final = 2**63 - 65_536
"""memory.limit_in_bytes without a limit is LONG_MAX rounded down to a page, of 64 KiB at most.

Source: Linux, include/linux/page_counter.h, PAGE_COUNTER_MAX.
"""


class Hierarchies(msgspec.Struct, frozen=True, kw_only=True):
    """Where the cgroup trees are mounted."""

    unified: str | None
    """cgroup v2."""
    controllers: dict[str, str]
    """cgroup v1: controller (or `name=systemd`) to its mount point. A controller here is not in v2."""


def parse_hierarchies(mountinfo: str) -> Hierarchies:
    """Parse /proc/self/mountinfo. Source: proc_pid_mountinfo(5); cgroups(7)."""
    unified: str | None = None
    controllers: dict[str, str] = {}
    for line in mountinfo.splitlines():
        left, separator, right = line.partition(" - ")
        if not separator:
            continue
        mount_point = left.split()[4]
        fs_type, _, options = right.split(maxsplit=2)
        if fs_type == "cgroup2":
            unified = unified or mount_point
        elif fs_type == "cgroup":
            for option in options.split(","):
                controllers.setdefault(option, mount_point)
    return Hierarchies(unified=unified, controllers=controllers)


def read_hierarchies() -> Hierarchies:
    return parse_hierarchies(MOUNTINFO.read_text(encoding="utf-8", errors="replace"))


def parse_v2_cpu(text: str) -> int | None:
    """Parse cpu.max: quota (or `max`) and period in microseconds; gives percent of one core."""
    quota, _, period = text.strip().partition(" ")
    return None if quota == "max" else round(int(quota) * 100 / int(period))


def parse_number(text: str) -> int | None:
    """Parse memory.max, pids.max: a number or `max`."""
    return None if text.strip() == "max" else int(text)


def parse_v2_weight(text: str) -> int | None:
    """Parse io.weight: the line `default N` counts, the others are for single devices."""
    for line in text.splitlines():
        device, _, weight = line.partition(" ")
        if device == "default" and weight.isdigit():
            return int(weight)
    return None


def parse_v1_memory(text: str) -> int | None:
    """Parse memory.limit_in_bytes."""
    value = int(text)
    return None if value >= V1_UNLIMITED_BYTES else value


def parse_v1_weight(text: str) -> int | None:
    """Parse blkio.weight; gives the IOWeight= that systemd writes so (500 for 100).

    Source: systemd v252, src/core/cgroup.c, cgroup_weight_io_to_blkio.
    """
    return round(int(text) / 5)


_V2: Final[dict[str, tuple[tuple[str, Callable[[str], int | None]], ...]]] = {
    "cpu_percent": (("cpu.max", parse_v2_cpu),),
    "memory_bytes": (("memory.max", parse_number),),
    "processes_max": (("pids.max", parse_number),),
    "io_weight": (("io.weight", parse_v2_weight), ("io.bfq.weight", parse_v2_weight)),
}
_V1: Final[dict[str, tuple[str, str, Callable[[str], int | None]]]] = {
    "memory_bytes": ("memory", "memory.limit_in_bytes", parse_v1_memory),
    "processes_max": ("pids", "pids.max", parse_number),
    "io_weight": ("blkio", "blkio.weight", parse_v1_weight),
}


def read_limits(hierarchies: Hierarchies, control_group: str) -> dict[str, LimitReading]:
    """Read the limits of a cgroup; empty when it does not exist (the slice is not active).

    A limit that this kernel has no file for reads None, with the missing file as its source: nothing enforces it.

    Args:
        hierarchies: Of this machine.
        control_group: As systemd's property ControlGroup has it, for example `/user.slice/user-20001.slice`.
    """
    if not control_group or not any(directory.is_dir() for directory in directories(hierarchies, control_group)):
        return {}
    readings = {field: _read_field(hierarchies, control_group, field) for field in _V2}
    return {field: reading for field, reading in readings.items() if reading is not None}


def _read_field(hierarchies: Hierarchies, control_group: str, field: str) -> LimitReading | None:
    if field == "cpu_percent" and "cpu" in hierarchies.controllers:
        return _read_v1_cpu(Path(hierarchies.controllers["cpu"] + control_group))
    if field in _V1 and _V1[field][0] in hierarchies.controllers:
        controller, name, parse = _V1[field]
        return _read_first(Path(hierarchies.controllers[controller] + control_group), ((name, parse),))
    if hierarchies.unified is not None:
        return _read_first(Path(hierarchies.unified + control_group), _V2[field])
    return None


def _read_first(directory: Path, files: tuple[tuple[str, Callable[[str], int | None]], ...]) -> LimitReading:
    for name, parse in files:
        text = _read(directory / name)
        if text is not None:
            return LimitReading(value=parse(text), source=str(directory / name))
    return LimitReading(value=None, source=f"{directory / files[0][0]} (not in this kernel)")


def _read_v1_cpu(directory: Path) -> LimitReading:
    """Quota is -1 without a limit. Source: Linux, Documentation/scheduler/sched-bwc.rst."""
    source = directory / "cpu.cfs_quota_us"
    quota, period = _read(source), _read(directory / "cpu.cfs_period_us")
    if quota is None or period is None:
        return LimitReading(value=None, source=f"{source} (not in this kernel)")
    value = None if int(quota) < 0 else round(int(quota) * 100 / int(period))
    return LimitReading(value=value, source=str(source))


def _read(path: Path) -> str | None:
    try:
        return path.read_text(encoding="ascii")
    except OSError:
        # Not there, or gone since: both say that nothing is enforced here.
        return None


def directories(hierarchies: Hierarchies, control_group: str) -> list[Path]:
    """Where a cgroup lies in each tree."""
    mounts = [*hierarchies.controllers.values(), *([hierarchies.unified] if hierarchies.unified else [])]
    return [Path(mount + control_group) for mount in dict.fromkeys(mounts)]


def list_pids(hierarchies: Hierarchies, control_group: str) -> set[int]:
    """Processes in a cgroup and all below it."""
    found: set[int] = set()
    if not control_group.strip("/"):
        return found
    for top in directories(hierarchies, control_group):
        for directory, _, files in os.walk(top):
            if "cgroup.procs" in files:
                text = _read(Path(directory, "cgroup.procs")) or ""
                found.update(int(line) for line in text.split())
    return found
