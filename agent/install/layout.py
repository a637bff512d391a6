"""Users and directories of a node."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path
from typing import Final

import msgspec

from agent.link.enrolment_keys import Owner
from agent.link.settings import AGENT_USER, NodePaths
from agent.system.runner import run

COMMAND_SECONDS: Final = 60.0


class Directory(msgspec.Struct, frozen=True):
    """A directory that the installer makes."""

    path: Path
    mode: int
    is_agents: bool = False
    """Owned by wcp-agent; else by root."""


def list_directories(paths: NodePaths) -> tuple[Directory, ...]:
    """Parents first."""
    return (
        # 0755: the agent reads agent.toml and the tenants' PHP masters their pool files; each file has its own mode.
        Directory(paths.config_dir, 0o755),
        Directory(paths.program_dir, 0o755),
        Directory(paths.program_dir / "versions", 0o755),
        Directory(paths.executor_state_dir, 0o700),
        # Everybody may read how the last update ended; each other file has its own mode.
        Directory(paths.updater_state_dir, 0o755),
        Directory(paths.agent_state_dir, 0o700, is_agents=True),
        Directory(paths.tls_dir, 0o700, is_agents=True),
        # Tenants pass through, and see neither the other names nor the logs of others.
        Directory(paths.accounts_dir, 0o711),
        Directory(paths.root / "var/log/wcp360", 0o711),
        Directory(paths.root / "var/log/wcp360/sites", 0o711),
    )


def find_agent_user() -> Owner | None:
    """Ids of wcp-agent; None when there is no such user."""
    try:
        return Owner(pwd.getpwnam(AGENT_USER).pw_uid, grp.getgrnam(AGENT_USER).gr_gid)
    except KeyError:
        return None


async def ensure_agent_user(paths: NodePaths) -> bool:
    """Make the system user wcp-agent with a group of its own; True when it was not there.

    Changes: /etc/passwd, /etc/shadow, /etc/group, /etc/gshadow.
    """
    if find_agent_user() is not None:
        return False
    argv = ("useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin")
    home = ("--home-dir", str(paths.agent_state_dir), "--comment", "WCP360 agent", AGENT_USER)
    await run((*argv, *home), timeout_seconds=COMMAND_SECONDS)
    return True


def ensure_directories(paths: NodePaths, agent: Owner) -> list[Path]:
    """Make what is missing, set owners and modes; returns what was made."""
    made = []
    for directory in list_directories(paths):
        if not directory.path.is_dir():
            directory.path.mkdir(parents=True)
            made.append(directory.path)
        owner = agent if directory.is_agents else Owner(0, 0)
        os.chown(directory.path, owner.uid, owner.gid, follow_symlinks=False)
        directory.path.chmod(directory.mode)
    return made
