"""The agent's systemd units on a node."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from agent.link.enrolment_keys import write_private_file
from agent.link.setup_errors import ExitCode, SetupError
from agent.system.runner import run
from shared.errors import CommandError

UNITS: Final = (
    "wcp-executor.socket",
    "wcp-executor.service",
    "wcp-agent.service",
    "wcp-updater.socket",
    "wcp-updater.service",
)
STARTED_UNITS: Final = ("wcp-executor.socket", "wcp-agent.service", "wcp-updater.socket")
"""The executor and the updater themselves are started by their sockets."""
ENABLED_UNITS: Final = (*STARTED_UNITS, "wcp-updater.service")
"""The updater also looks at each boot whether an update was interrupted."""
COMMAND_SECONDS: Final = 120.0


def unit_dir(root: Path) -> Path:
    """Where an administrator's and our units live. Source: systemd.unit(5), unit file load path."""
    return root / "etc/systemd/system"


def ensure_unit_files(source: Path, root: Path) -> list[str]:
    """Copy the units that differ; returns their names. systemd has not read them yet."""
    changed = []
    for name in UNITS:
        wanted = (source / name).read_bytes()
        target = unit_dir(root) / name
        if not target.exists() or target.read_bytes() != wanted:
            write_private_file(target, wanted, mode=0o644)
            changed.append(name)
    return changed


async def is_active(unit: str) -> bool:
    """Whether systemd has it running (or listening)."""
    completed = await run(
        ("systemctl", "is-active", "--quiet", unit), timeout_seconds=COMMAND_SECONDS, accepted_codes=range(256)
    )
    return completed.exit_code == 0


async def start_units(*, is_changed: bool) -> None:
    """Enable and start; after a change of code or units, anew.

    Restarts: wcp-agent.service, and wcp-executor.service if it runs, only when something changed.

    Raises:
        SetupError: systemd could not start them.
    """
    try:
        await _systemctl("daemon-reload")
        await _systemctl("enable", "--quiet", *ENABLED_UNITS)
        if is_changed:
            await _systemctl("reset-failed", *UNITS, accepted_codes=range(256))
            await _systemctl("stop", "wcp-agent.service", "wcp-executor.service", "wcp-updater.service")
            await _systemctl("restart", "wcp-executor.socket", "wcp-updater.socket")
        await _systemctl("start", *STARTED_UNITS)
    except CommandError as error:
        raise SetupError(
            ExitCode.SERVICE_FAILED,
            f"the services could not be started: {error.message}",
            hint="journalctl -u wcp-agent -u wcp-executor",
        ) from error


async def remove_units(root: Path) -> list[str]:
    """Stop, disable and delete them; returns the names of those that were there."""
    present = [name for name in UNITS if (unit_dir(root) / name).exists()]
    if present:
        # The socket first: it would start the executor again.
        for name in ("wcp-updater.socket", "wcp-updater.service", "wcp-executor.socket"):
            await _systemctl("disable", "--quiet", "--now", name, accepted_codes=range(256))
        await _systemctl("disable", "--quiet", "--now", "wcp-agent.service", accepted_codes=range(256))
        await _systemctl("stop", *present, accepted_codes=range(256))
    for name in present:
        (unit_dir(root) / name).unlink()
    if present:
        await _systemctl("daemon-reload")
        await _systemctl("reset-failed", *present, accepted_codes=range(256))
    return present


async def _systemctl(*words: str, accepted_codes: range | tuple[int, ...] = (0,)) -> None:
    await run(("systemctl", *words), timeout_seconds=COMMAND_SECONDS, accepted_codes=accepted_codes)
