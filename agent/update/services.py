"""What the updater asks of systemd, the executor and the new code: the only part of it that needs a real node."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, Protocol

from agent.link.status_file import LinkStatus
from agent.system.runner import run
from shared.errors import CommandError, ProtocolError
from shared.protocol.local import (
    EXECUTOR_SOCKET,
    LENGTH_BYTES,
    ExecutorStatus,
    RequestStatus,
    decode_from_executor,
    decode_length,
    encode_local,
)

COMMAND_SECONDS: Final = 120.0
STOP_SECONDS: Final = 200.0
"""More than the executor's own TimeoutStopSec: a running step ends or is undone."""
SELF_TEST_SECONDS: Final = 60.0
STATUS_SECONDS: Final = 60.0
MAX_STATUS_BYTES: Final = 64 * 1024
AGENT: Final = "wcp-agent.service"
EXECUTOR: Final = "wcp-executor.service"


class NodeServices(Protocol):
    """What runs on the node."""

    async def self_test(self, program: Path) -> None:
        """Let the code in this folder prove that it works on this machine.

        Raises:
            CommandError: It does not.
        """
        ...

    async def is_idle(self) -> bool:
        """Whether the executor has no job."""
        ...

    async def stop(self) -> None:
        """End the agent and the executor; what runs is finished or undone first."""
        ...

    async def start(self) -> None:
        """Read the units anew and start the agent; the executor comes with its socket. Again: nothing happens."""
        ...

    async def describe_agent(self) -> str:
        """What systemd says of the agent, for the reason of a failure."""
        ...


class SystemdServices:
    """A real node."""

    def __init__(self, *, executor_socket: str = EXECUTOR_SOCKET) -> None:
        self._executor_socket = executor_socket

    async def self_test(self, program: Path) -> None:
        await run(
            ("/usr/bin/python3", "-P", "-m", "agent", "self-test"),
            timeout_seconds=SELF_TEST_SECONDS,
            environment={"PYTHONPATH": str(program), "PYTHONDONTWRITEBYTECODE": "1"},
        )

    async def is_idle(self) -> bool:
        try:
            async with asyncio.timeout(STATUS_SECONDS):
                return (await self._read_status()).running_jobs == 0
        except (OSError, TimeoutError, asyncio.IncompleteReadError, ProtocolError):
            # An executor that cannot say it is idle may be in the middle of something.
            return False

    async def _read_status(self) -> ExecutorStatus:
        reader, writer = await asyncio.open_unix_connection(self._executor_socket)
        try:
            writer.write(encode_local(RequestStatus()))
            await writer.drain()
            while True:
                body = await reader.readexactly(decode_length(await reader.readexactly(LENGTH_BYTES)))
                frame = decode_from_executor(body)
                if isinstance(frame, ExecutorStatus):
                    return frame
        finally:
            writer.close()

    async def stop(self) -> None:
        # The agent first: connecting starts the executor again.
        await run(("systemctl", "stop", AGENT), timeout_seconds=STOP_SECONDS)
        await run(("systemctl", "stop", EXECUTOR), timeout_seconds=STOP_SECONDS)

    async def start(self) -> None:
        await _systemctl("daemon-reload")
        await _systemctl("reset-failed", AGENT, EXECUTOR, accepted_codes=range(256))
        await _systemctl("restart", "wcp-executor.socket")
        # Not waiting: an agent that never gets ready is what the probation is for.
        await _systemctl("start", "--no-block", AGENT)

    async def describe_agent(self) -> str:
        names = "ActiveState", "SubState", "Result", "ExecMainStatus", "NRestarts"
        argv = ("systemctl", "show", AGENT, *(f"--property={name}" for name in names))
        try:
            said = await run(argv, timeout_seconds=COMMAND_SECONDS)
        except CommandError as error:
            return error.message
        return " ".join(said.stdout.split())


async def _systemctl(*words: str, accepted_codes: range | tuple[int, ...] = (0,)) -> None:
    await run(("systemctl", *words), timeout_seconds=COMMAND_SECONDS, accepted_codes=accepted_codes)


def summarise_status(status: LinkStatus | None) -> str:
    """What the link itself said last."""
    if status is None:
        return "the agent has not said anything"
    return f"the agent says: {status.state.value} {status.last_error}".rstrip()
