"""What a machine must be before anything is changed on it."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from agent.link.setup_errors import ExitCode, SetupError

SUPPORTED_RELEASES: Final[Mapping[str, str]] = {"12": "bookworm", "13": "trixie"}
SUPPORTED_ARCHITECTURES: Final = ("x86_64", "aarch64")


def parse_os_release(text: str) -> dict[str, str]:
    """Names to values. Source: os-release(5); the values we read need no unescaping beyond quotes."""
    pairs = (line.partition("=") for line in text.splitlines() if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, _, value in pairs}


def require_supported_release(release: Mapping[str, str]) -> None:
    """Check the distribution.

    Raises:
        SetupError: It is not Debian 12 or 13.
    """
    if release.get("ID") != "debian" or release.get("VERSION_ID") not in SUPPORTED_RELEASES:
        name = release.get("PRETTY_NAME") or release.get("ID") or "an unknown system"
        raise SetupError(
            ExitCode.UNSUPPORTED_SYSTEM,
            f"this machine runs {name}; a node needs Debian 12 or 13",
            hint="Nothing was changed.",
        )


def require_supported_architecture(machine: str, available: tuple[str, ...] = SUPPORTED_ARCHITECTURES) -> None:
    """Check the processor.

    Raises:
        SetupError: There are no libraries for it.
    """
    if machine not in available:
        raise SetupError(
            ExitCode.UNSUPPORTED_SYSTEM, f"the architecture {machine} is not supported", hint="Nothing was changed."
        )


def require_systemd(root: Path) -> None:
    """Check that systemd is in charge. Source: sd_booted(3): /run/systemd/system exists exactly then.

    Raises:
        SetupError: It is not.
    """
    if not (root / "run/systemd/system").is_dir():
        raise SetupError(
            ExitCode.UNSUPPORTED_SYSTEM,
            "this machine was not booted with systemd",
            hint="A node needs it for units, slices and sockets. Nothing was changed.",
        )


def require_root() -> None:
    """Check who runs.

    Raises:
        SetupError: It is not root.
    """
    if os.geteuid() != 0:
        raise SetupError(
            ExitCode.NOT_ROOT, "this needs root", hint="Put sudo before `sh`: ... | sudo WCP360_TOKEN='e1...' sh"
        )


def require_node_machine(root: Path) -> None:
    """All checks that need no network.

    Raises:
        SetupError: One of them failed.
    """
    require_root()
    try:
        text = (root / "etc/os-release").read_text(encoding="utf-8")
    except OSError:
        text = ""
    require_supported_release(parse_os_release(text))
    require_supported_architecture(platform.machine())
    require_systemd(root)
