"""user-UID.slice: limits that systemd keeps over a reboot, and what the kernel made of them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

from dbus_fast import Variant

from agent.contract.facts import SliceFact
from agent.system import cgroups, files, tree
from agent.system.bus import SERVICE
from agent.system.systemd import Systemd
from agent.system.undo import SliceUndo
from shared.specs.account import MAX_TENANT_UID, MIB, MIN_TENANT_UID, ResourceLimits

SLICE_INTERFACE: Final = f"{SERVICE}.Slice"
INFINITY: Final = 2**64 - 1
"""How systemd's D-Bus says "no limit", and "no weight set" for IOWeight. Source: org.freedesktop.systemd1(5)."""
CPU_USEC_PER_PERCENT: Final = 10_000
"""CPUQuotaPerSecUSec: microseconds of one core in a second."""

CONTROL_DIRECTORY: Final = Path("/etc/systemd/system.control")
"""Where systemd keeps what SetUnitProperties sets for good."""
UNIT_DIRECTORY: Final = Path("/etc/systemd/system")

KEEP_DROP_IN: Final = """\
# Written by WCP360. systemd's own user-.slice.d stops a user's slice when nothing needs it; the limits of an account
# are to be readable in the kernel at any time.
[Unit]
StopWhenUnneeded=no
"""


def slice_name(uid: int) -> str:
    return f"user-{uid}.slice"


def keep_path(uid: int) -> Path:
    """Our drop-in of the slice."""
    return UNIT_DIRECTORY / f"{slice_name(uid)}.d" / "50-wcp360.conf"


def boot_path(uid: int) -> Path:
    """Our drop-in that has the slice made at boot: without a unit file there is no [Install] to enable."""
    return UNIT_DIRECTORY / "multi-user.target.d" / f"50-wcp360-user-{uid}.conf"


def properties_of(limits: ResourceLimits) -> dict[str, Variant]:
    """Every limit as a property, so that what is not limited now is freed of an earlier limit."""
    cpu = INFINITY if limits.cpu_percent is None else limits.cpu_percent * CPU_USEC_PER_PERCENT
    return {
        "CPUQuotaPerSecUSec": Variant("t", cpu),
        "MemoryMax": Variant("t", INFINITY if limits.memory_bytes is None else limits.memory_bytes),
        "TasksMax": Variant("t", INFINITY if limits.processes_max is None else limits.processes_max),
        "IOWeight": Variant("t", INFINITY if limits.io_weight is None else limits.io_weight),
    }


def limits_of(properties: dict[str, Any]) -> ResourceLimits:
    """What systemd keeps, as limits; a value that we never set is shown as the nearest that we could have set."""
    return ResourceLimits(
        cpu_percent=_between(properties["CPUQuotaPerSecUSec"], CPU_USEC_PER_PERCENT, 1, 100_000),
        memory_bytes=_between(properties["MemoryMax"], 1, 16 * MIB, 16 * MIB * 1024 * 1024),
        processes_max=_between(properties["TasksMax"], 1, 5, 100_000),
        io_weight=_between(properties["IOWeight"], 1, 1, 10_000),
    )


def _between(raw: int, unit: int, low: int, high: int) -> int | None:
    return None if raw == INFINITY else min(max(round(raw / unit), low), high)


async def slice_control_group(systemd: Systemd, uid: int) -> str:
    """Path of the slice in the cgroup trees; empty while it is not active."""
    properties = await systemd.properties(slice_name(uid), SLICE_INTERFACE)
    return str(properties["ControlGroup"])


class Slices:
    """The slices of accounts."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd

    async def read(self, uid: int) -> SliceFact:
        """See Probe.slice."""
        unit = await self._systemd.unit(slice_name(uid))
        properties = await self._systemd.properties(slice_name(uid), SLICE_INTERFACE)
        control_group = str(properties["ControlGroup"])
        hierarchies = await asyncio.to_thread(cgroups.read_hierarchies)
        readings = await asyncio.to_thread(cgroups.read_limits, hierarchies, control_group)
        return SliceFact(configured=limits_of(properties), readings=readings, is_active=unit.is_running)

    async def set_limits(self, uid: int, limits: ResourceLimits) -> None:
        """Set limits for now and after a reboot, and have the slice's cgroup made.

        Raises:
            CommandError: systemd refused.
            UnavailableError: It does not answer, or /etc cannot be written.
        """
        await asyncio.to_thread(_write_drop_ins, uid)
        if (await self._systemd.properties(slice_name(uid)))["NeedDaemonReload"]:
            await self._systemd.daemon_reload()
        await self._systemd.set_properties(slice_name(uid), properties_of(limits))
        await self._systemd.start(slice_name(uid))

    async def capture(self, uid: int) -> SliceUndo:
        fact = await self.read(uid)
        is_ours = await asyncio.to_thread(keep_path(uid).exists)
        return SliceUndo(uid=uid, is_ours=is_ours, is_active=fact.is_active, limits=fact.configured)

    async def undo(self, record: SliceUndo) -> None:
        if record.is_ours:
            await self.set_limits(record.uid, record.limits)
        else:
            await self.forget(record.uid, is_stopped=not record.is_active)

    async def forget(self, uid: int, *, is_stopped: bool) -> None:
        """Leave no trace of our limits. `is_stopped`: the slice and all that runs in it ends, too.

        A user outside the tenants' range is left alone: we never set anything on it.
        """
        if not MIN_TENANT_UID <= uid <= MAX_TENANT_UID:
            return
        if is_stopped:
            await self._systemd.stop(slice_name(uid))
        if await asyncio.to_thread(_remove_drop_ins, uid):
            await self._systemd.daemon_reload()


def _write_drop_ins(uid: int) -> None:
    wanted = {keep_path(uid): KEEP_DROP_IN, boot_path(uid): f"# Written by WCP360.\n[Unit]\nWants={slice_name(uid)}\n"}
    for path, content in wanted.items():
        files.ensure_directory(str(path.parent), uid=0, gid=0, mode=0o755)
        files.write_file(str(path), content.encode(), uid=0, gid=0, mode=0o644)


def _remove_drop_ins(uid: int) -> bool:
    """Remove what we and systemd on our behalf wrote; whether there was anything."""
    control = CONTROL_DIRECTORY / f"{slice_name(uid)}.d"
    found = [path for path in (keep_path(uid), boot_path(uid), control) if path.exists()]
    for path in found:
        tree.remove_tree(str(path))
    for folder in (keep_path(uid).parent, boot_path(uid).parent):
        # Stays where an administrator put something of their own into it.
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    return bool(found)
