"""A control group per node: the kernel's own record of which processes are the node's.

Because membership is inherited and cannot be left by accident, "is the node running" and "which processes must die"
are answered by its cgroup and never by a saved process id, which another process may have by now.
Both hierarchies are known here and nowhere else: v2 alone, or v1 controllers with or without a v2 mount beside them.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from wcplab.errors import CannotBootError, LabError
from wcplab.mounts import Mount, read_mounts

PARENT_NAME = "wcp360-lab"
CGROUP_DIRECTORY = Path("/sys/fs/cgroup")
"""Source: cgroups(7). Trees mounted elsewhere belong to some container's root directory."""
V1_CONTROLLERS = frozenset({"cpu", "cpuacct", "memory", "pids", "blkio", "freezer", "devices", "name=systemd"})
"""cpuset is left alone: a new v1 cpuset has no CPUs, and nothing can join it before they are set."""
V2_CONTROLLERS = ("cpu", "memory", "pids", "io", "cpuset")
KILL_TIMEOUT_SECONDS = 15.0
POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup tree."""

    root: Path
    version: int


def choose_hierarchies(mounts: Sequence[Mount]) -> list[Hierarchy]:
    """Pick the trees a node joins out of the mount table, the one that identifies its processes first."""
    first: list[Hierarchy] = []
    others: list[Hierarchy] = []
    for entry in mounts:
        if not entry.mount_point.is_relative_to(CGROUP_DIRECTORY):
            continue
        if entry.fs_type == "cgroup2":
            others.append(Hierarchy(entry.mount_point, 2))
        elif entry.fs_type == "cgroup" and V1_CONTROLLERS & set(entry.options):
            chosen = first if "pids" in entry.options else others
            chosen.append(Hierarchy(entry.mount_point, 1))
    unique = {hierarchy.root: hierarchy for hierarchy in first + others}
    return list(unique.values())


def read_hierarchies() -> list[Hierarchy]:
    """Return the trees of this machine.

    Raises:
        CannotBootError: no cgroup tree is mounted.
    """
    found = choose_hierarchies(read_mounts())
    if not found:
        hint = "mount cgroup2 at /sys/fs/cgroup, or run the lab on the host and not in a container"
        raise CannotBootError("no_cgroup", "no cgroup tree is mounted", hint=hint)
    return found


def node_path(group: str, node: str) -> Path:
    """The node's place in every tree; `group` is its lab's bridge, which is unique on the machine."""
    return Path(PARENT_NAME) / group / node


def create(relative: Path) -> list[Path]:
    """Make the node's cgroup in every tree and return the directories. Idempotent.

    Raises:
        CannotBootError: the trees are read-only, as in an unprivileged container.
    """
    directories = []
    for hierarchy in read_hierarchies():
        directory = hierarchy.root / relative
        try:
            directory.mkdir(parents=True, exist_ok=True)
            if hierarchy.version == 2:
                _delegate(hierarchy.root, relative)
        except OSError as error:
            hint = "the lab needs a writable /sys/fs/cgroup: run it as root on the host"
            raise CannotBootError("cgroup_read_only", f"cannot make {directory}: {error}", hint=hint) from error
        directories.append(directory)
    return directories


def _delegate(root: Path, relative: Path) -> None:
    """Hand every controller of a v2 tree down to the node's cgroup, so that limits inside the node hold.

    Source: Documentation/admin-guide/cgroup-v2.rst, "Top-down Constraint".
    """
    available = set((root / "cgroup.controllers").read_text(encoding="ascii").split())
    wanted = " ".join(f"+{name}" for name in V2_CONTROLLERS if name in available)
    if not wanted:
        return
    for parent in reversed((root / relative).parents):
        if parent.is_relative_to(root):
            (parent / "cgroup.subtree_control").write_text(wanted, encoding="ascii")


def list_pids(relative: Path) -> list[int]:
    """Return the processes of a node (its nspawn included), zombies excluded; empty when there is no such cgroup."""
    found: set[int] = set()
    for hierarchy in read_hierarchies():
        for directory, _, files in os.walk(hierarchy.root / relative):
            if "cgroup.procs" in files:
                found.update(_read_pids(Path(directory) / "cgroup.procs"))
    return sorted(pid for pid in found if read_state(pid) not in {"Z", "X", ""})


def _read_pids(path: Path) -> list[int]:
    try:
        return [int(line) for line in path.read_text(encoding="ascii").split()]
    except OSError:
        # The cgroup went away between listing and reading: its processes are gone.
        return []


def read_stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat from the third (state) on; empty when the process is gone.

    Source: proc_pid_stat(5). The second field may hold blanks and brackets, so fields are counted from its end.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def read_state(pid: int) -> str:
    """Return the one-letter state of a process, or "" when it is gone."""
    fields = read_stat_fields(pid)
    return fields[0] if fields else ""


def find_leader(pids: Sequence[int]) -> int | None:
    """Return the process that is PID 1 inside the node, or None.

    Containers inside the node have a PID 1 too, one namespace deeper: the shallowest is the node's.
    """
    leaders = []
    for pid in pids:
        numbers = read_namespace_pids(pid)
        if len(numbers) > 1 and numbers[-1] == 1:
            leaders.append((len(numbers), pid))
    return min(leaders)[1] if leaders else None


def read_namespace_pids(pid: int) -> list[int]:
    """Return the process's id in each nested PID namespace, outermost first.

    Source: proc_pid_status(5), NSpid.
    """
    try:
        text = Path(f"/proc/{pid}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    for line in text.splitlines():
        if line.startswith("NSpid:"):
            return [int(number) for number in line.split()[1:]]
    return []


def parse_membership(text: str) -> dict[str, str]:
    """Parse /proc/PID/cgroup: controllers ("" for v2) mapped to the path below the tree's root.

    Source: cgroups(7), /proc/pid/cgroup: "hierarchy-ID:controller-list:cgroup-path".
    """
    membership = {}
    for line in text.splitlines():
        _, controllers, path = line.split(":", 2)
        membership[controllers] = path
    return membership


def leader_cgroups(leader: int) -> list[Path]:
    """Return the cgroup directories the leader is in, so that a command can be put beside it, inside its limits."""
    membership = parse_membership(Path(f"/proc/{leader}/cgroup").read_text(encoding="utf-8"))
    directories: dict[Path, None] = {}
    for entry in read_mounts():
        controllers = "" if entry.fs_type == "cgroup2" else _matching(membership, entry)
        is_tree = entry.fs_type in {"cgroup", "cgroup2"} and entry.mount_point.is_relative_to(CGROUP_DIRECTORY)
        if not is_tree or controllers not in membership:
            continue
        directory = entry.mount_point / membership[controllers].lstrip("/")
        # "/" means that the node did not join this tree (cpuset).
        if directory != entry.mount_point:
            directories[directory] = None
    return list(directories)


def _matching(membership: dict[str, str], entry: Mount) -> str:
    for controllers in membership:
        if controllers and set(controllers.split(",")) <= set(entry.options):
            return controllers
    return "none"


def kill(relative: Path) -> None:
    """End every process of a node at once and remove its cgroup. Idempotent.

    Raises:
        LabError: a process could not be ended (it hangs in the kernel).
    """
    deadline = time.monotonic() + KILL_TIMEOUT_SECONDS
    while pids := list_pids(relative):
        if time.monotonic() > deadline:
            raise LabError("cannot_kill", f"{relative} still has processes {pids}", hint="see dmesg for a hung task")
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(POLL_SECONDS)
    remove(relative, deadline)


def remove(relative: Path, deadline: float) -> None:
    """Remove a node's empty cgroups. A cgroup stays busy for a moment after its last process, hence the retries."""
    for hierarchy in read_hierarchies():
        top = hierarchy.root / relative
        while top.exists():
            for directory, _, _ in os.walk(top, topdown=False):
                _try_rmdir(Path(directory))
            if time.monotonic() > deadline:
                break
            time.sleep(0 if not top.exists() else POLL_SECONDS)


def remove_group(group: str) -> None:
    """Remove a lab's empty cgroup, and the common parent when no other lab is left."""
    for hierarchy in read_hierarchies():
        _try_rmdir(hierarchy.root / PARENT_NAME / group)
        _try_rmdir(hierarchy.root / PARENT_NAME)


def _try_rmdir(directory: Path) -> None:
    try:
        directory.rmdir()
    except OSError:
        # Busy or gone; the caller looks again.
        return
