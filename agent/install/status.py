"""`wcp-agent status`: what this machine is, in a few lines."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime

from agent.install import code, units
from agent.link.certificate import parse_not_after
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.status_file import LinkState, LinkStatus, read_status
from shared.errors import InvalidInputError, NotFoundError

EXIT_CONNECTED = 0
EXIT_NOT_CONNECTED = 3
"""Source: LSB init script actions: status 3 = not running."""
EXIT_NOT_ENROLLED = 4
"""Source: as above, 4 = status unknown."""


async def show_status(paths: NodePaths, say: Callable[[str], None] = print) -> int:
    """Print it and return the exit code: 0 connected, 3 not connected, 4 no node."""
    try:
        settings = read_agent_settings(paths)
    except PermissionError:
        settings = None  # agent.toml is for root and the agent; the rest is for everybody
    except (NotFoundError, InvalidInputError) as error:
        say(f"{error.message}")
        return EXIT_NOT_ENROLLED
    status = read_status(paths.status_json)
    if settings is not None:
        say(f"node         {settings.node_id}")
        say(f"controller   {settings.controller_url}")
        say(f"gateway      {settings.gateway_url}")
    say(f"agent        {code.find_current_build(paths.program_dir) or 'unknown'}")
    say(f"certificate  {_describe_certificate(paths)}")
    for unit in units.STARTED_UNITS:
        say(f"{unit:<24} {'active' if await units.is_active(unit) else 'not active'}")
    say(f"link         {_describe_link(status)}")
    is_connected = status is not None and status.state is LinkState.CONNECTED
    return EXIT_CONNECTED if is_connected else EXIT_NOT_CONNECTED


def _describe_certificate(paths: NodePaths) -> str:
    try:
        not_after = parse_not_after(paths.node_pem.read_text(encoding="ascii"))
    except (OSError, InvalidInputError):
        return "not readable (are you root?)"
    days = (not_after - datetime.now(UTC)).total_seconds() / 86_400
    return f"until {not_after:%Y-%m-%d %H:%M} UTC ({days:.0f} days)"


def _describe_link(status: LinkStatus | None) -> str:
    if status is None:
        return "the agent does not run"
    parts = [status.state.value, f"for {max(0.0, time.time() - status.changed_at):.0f} s"]
    if status.last_error and status.state is not LinkState.CONNECTED:
        parts.append(f"- {status.last_error}")
    if status.quarantine:
        parts.append(f"- the executor takes no jobs: {status.quarantine}")
    return " ".join(parts)
