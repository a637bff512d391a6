"""What of a release is live outside of its own folder: the units; and what the live agent says of itself."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import msgspec

from agent.link.status_file import LinkStatus
from agent.update.state import sync_folder, write_durably

MAX_STATUS_BYTES: Final = 64 * 1024
_OUR_UNIT: Final = re.compile(r"^wcp-(agent|executor|updater)\.(service|socket)$", re.ASCII)


def read_units(names_from: Path, folder: Path) -> dict[str, str | None]:
    """Text of the agent's units in a folder, by file name: of all that a release brings. None: there is none."""
    names = sorted(path.name for path in names_from.iterdir() if _OUR_UNIT.match(path.name))
    return {name: _read_text(folder / name) for name in names}


def put_units(units: dict[str, str | None], folder: Path) -> None:
    """Write those that differ, remove those that shall not be there; systemd has not read them yet."""
    for name, text in units.items():
        if not _OUR_UNIT.match(name) or _read_text(folder / name) == text:
            continue
        if text is None:
            (folder / name).unlink()
            sync_folder(folder)
        else:
            write_durably(folder / name, text.encode(), mode=0o644)


def _read_text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def read_link_status(path: Path) -> LinkStatus | None:
    """What the link last wrote. The folder is the agent's own, so no link is followed and no device is opened there."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor, "rb") as file:
        try:
            return msgspec.json.decode(file.read(MAX_STATUS_BYTES), type=LinkStatus)
        except (OSError, msgspec.MsgspecError):
            return None
