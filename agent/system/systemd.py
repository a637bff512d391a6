"""systemd's units: facts, starting and stopping, enabling, reloading, and one-shot commands in units of their own."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec
from dbus_fast import Variant

from agent.contract.facts import UnitFact
from agent.system.bus import (
    NO_SUCH_UNIT,
    PROPERTIES,
    RELOAD_TIMEOUT_SECONDS,
    SERVICE,
    ConnectionLostError,
    SystemdBus,
    SystemdError,
)
from agent.system.handover import list_accepting_workers, wait_for_handover
from agent.system.runner import ENVIRONMENT, STDERR_TAIL_CHARACTERS, resolve_program, run
from shared.errors import CommandError, FleetError, UnavailableError

UNIT_INTERFACE: Final = f"{SERVICE}.Unit"
SERVICE_INTERFACE: Final = f"{SERVICE}.Service"
UNIT_DIRECTORIES: Final = ("/etc/systemd/system/", "/run/systemd/system/")
"""Where a file that comes or goes asks for a daemon-reload."""

RUNNING_STATES: Final = frozenset({"active", "reloading", "refreshing"})
ENABLED_STATES: Final = frozenset({"enabled", "enabled-runtime"})
_JOURNAL_LINES: Final = 12
_POLL_SECONDS: Final = 0.2
JOB_ATTEMPTS: Final = 3
STOP_SECONDS: Final = 30.0
"""For a transient unit whose caller gives up; systemd kills what has not ended by then."""
UNIT_EXISTS: Final = f"{SERVICE}.UnitExists"


class TransientCommand(msgspec.Struct, frozen=True, kw_only=True):
    """One command of a transient unit."""

    argv: tuple[str, ...]
    is_failure_ignored: bool = False


MICROSECONDS: Final = 1e6
"""systemd counts time in them. Source: org.freedesktop.systemd1(5), StateChangeTimestamp."""


def fact_of(properties: Mapping[str, str], file_state: str) -> UnitFact:
    """Judge what systemd says about a unit."""
    return UnitFact(
        is_loaded=properties["LoadState"] != "not-found",
        is_running=properties["ActiveState"] in RUNNING_STATES,
        is_enabled=file_state in ENABLED_STATES,
        has_failed=properties["ActiveState"] == "failed",
        changed_at=int(properties.get("StateChangeTimestamp") or 0) / MICROSECONDS,
    )


class Systemd:
    """The units of this node."""

    def __init__(self, *, run_directory: Path) -> None:
        self.bus = SystemdBus()
        self._run_directory = run_directory
        self._reload_lock = asyncio.Lock()
        self._reload_waiting: asyncio.Task[None] | None = None

    async def properties(self, unit: str, interface: str = UNIT_INTERFACE) -> dict[str, Any]:
        """All properties of a unit on one interface; a unit that does not exist has them too (LoadState not-found)."""
        (path,) = await self.bus.call("LoadUnit", "s", [unit])
        (values,) = await self.bus.call("GetAll", "s", [interface], path=path, interface=PROPERTIES)
        return {name: value.value for name, value in values.items()}

    async def unit(self, name: str) -> UnitFact:
        """See Probe.unit."""
        try:
            properties = await self.properties(name)
        except SystemdError as error:
            if error.name in NO_SUCH_UNIT:
                return UnitFact(is_loaded=False, is_running=False, is_enabled=False)
            raise
        return fact_of(properties, await self._file_state(name))

    async def _file_state(self, name: str) -> str:
        # Asked of the disk: the property of the loaded unit is as old as the last daemon-reload.
        try:
            (state,) = await self.bus.call("GetUnitFileState", "s", [name])
        except SystemdError as error:
            if error.name in NO_SUCH_UNIT:
                return ""
            raise
        return str(state)

    async def start(self, unit: str) -> None:
        """Start a unit and wait until it is up.

        Raises:
            CommandError: It did not start; with the last lines of its journal.
        """
        await self._require_done("StartUnit", unit)

    async def stop(self, unit: str) -> None:
        """Stop a unit and wait until it is down; one that does not exist is down.

        Raises:
            CommandError: It did not stop.
        """
        with _missing_is_fine():
            await self._require_done("StopUnit", unit)

    async def reload_if_running(self, unit: str) -> None:
        """Have a running unit read its configuration again, and wait until all its workers have.

        Raises:
            CommandError: It failed to.
        """
        if not (await self.unit(unit)).is_running:
            return
        main_pid = int((await self.properties(unit, SERVICE_INTERFACE))["MainPID"])
        old_workers = list_accepting_workers(main_pid)
        await self._require_done("ReloadUnit", unit)
        await wait_for_handover(main_pid, old_workers)

    async def _require_done(self, member: str, unit: str) -> None:
        result = await self._run_job(member, unit)
        if result not in {"done", "skipped"}:
            journal = await self._journal_tail(unit)
            raise CommandError(
                ("systemd", member, unit), 1, journal or result, hint=f"systemd says: {result}; see its journal."
            )

    async def _run_job(self, member: str, unit: str) -> str:
        for _ in range(JOB_ATTEMPTS - 1):
            try:
                return await self.bus.run_job(member, "ss", [unit, "replace"])
            except ConnectionLostError:
                # Asked again, systemd joins us to the job that still runs, or finds that nothing is left to do.
                await asyncio.sleep(_POLL_SECONDS)
        return await self.bus.run_job(member, "ss", [unit, "replace"])

    async def _journal_tail(self, unit: str) -> str:
        # Not --boot: ProtectKernelTunables= shows a container's own boot id no longer, and nothing would match.
        argv = ["journalctl", "--no-pager", "--quiet", f"--unit={unit}", "--output=cat"]
        try:
            # A unit that fails at once is often read about before journald took its last words in.
            await run(("journalctl", "--sync"), timeout_seconds=10)
            return (await run([*argv, f"--lines={_JOURNAL_LINES}"], timeout_seconds=10)).stdout
        except FleetError:
            # The journal only explains a failure that is reported anyway.
            return ""

    async def reset_failed(self, unit: str) -> None:
        """Forget that a unit failed, so that a start limit does not stand in the way."""
        with _missing_is_fine():
            await self.bus.call("ResetFailedUnit", "s", [unit])

    async def enable(self, unit: str) -> None:
        """Have a unit started at boot.

        Raises:
            CommandError: Its file has no [Install] section, or there is no such unit.
        """
        has_install, _ = await self.bus.call("EnableUnitFiles", "asbb", [[unit], False, True])
        if not has_install:
            raise CommandError(("systemd", "EnableUnitFiles", unit), 1, "the unit file has no [Install] section")
        await self.daemon_reload()

    async def disable(self, unit: str) -> None:
        """Have a unit not started at boot; one that does not exist is not."""
        with _missing_is_fine():
            (changes,) = await self.bus.call("DisableUnitFiles", "asb", [[unit], False])
            if changes:
                await self.daemon_reload()

    async def daemon_reload(self) -> None:
        """Have systemd read its unit files again; it has read all that were there when this was called.

        Many callers at once cost two reloads: the one that runs, and one more for all who came meanwhile.
        """
        if self._reload_waiting is None:
            self._reload_waiting = asyncio.create_task(self._reload_once())
        await asyncio.shield(self._reload_waiting)

    async def _reload_once(self) -> None:
        async with self._reload_lock:
            # From here on files may have changed after systemd looked: newcomers need the next one.
            self._reload_waiting = None
            await self.bus.call("Reload", timeout_seconds=RELOAD_TIMEOUT_SECONDS)

    async def set_properties(self, unit: str, properties: Mapping[str, Variant]) -> None:
        """Set properties now and for good: systemd keeps them below /etc/systemd/system.control."""
        rows = [[name, value] for name, value in properties.items()]
        await self.bus.call("SetUnitProperties", "sba(sv)", [unit, False, rows])

    async def kill(self, unit: str, signal_number: int) -> None:
        """Send a signal to every process in a unit's cgroup and below; none is fine."""
        with _missing_is_fine():
            await self.bus.call("KillUnit", "ssi", [unit, "all", signal_number])

    async def run_transient(
        self,
        name: str,
        commands: Sequence[TransientCommand],
        *,
        environment: Mapping[str, str],
        timeout_seconds: float,
    ) -> str:
        """Run commands one after the other in a unit of their own, and return what they said.

        The unit has what the executor gave up: the network, and a writable system. It outlives an executor that dies.

        Raises:
            CommandError: A command failed, with the end of the output.
            UnavailableError: They did not end in time.
        """
        unit = f"wcp360-{name}-{secrets.token_hex(4)}.service"
        output = self._run_directory / f"{unit}.log"
        self._run_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        output.write_bytes(b"")
        properties = _transient_properties(name, commands, environment, timeout_seconds, str(output))
        limit_seconds = timeout_seconds + RELOAD_TIMEOUT_SECONDS
        rows = [[key, value] for key, value in properties.items()]
        try:
            is_done = await self._run_to_its_end(unit, [unit, "fail", rows, []], limit_seconds)
            said = output.read_text(encoding="utf-8", errors="replace")
        except BaseException:
            # Nobody waits for it any more (time is up, the job was cancelled): it must not run on while it is undone.
            await self._stop_quietly(unit)
            raise
        finally:
            output.unlink(missing_ok=True)
        if not is_done:
            await self._raise_failed(unit, commands, said)
        return said

    async def _run_to_its_end(self, unit: str, arguments: Sequence[Any], limit_seconds: float) -> bool:
        """Start a transient unit and wait until it has ended; whether it ended well."""
        try:
            result = await self.bus.run_job(
                "StartTransientUnit", "ssa(sv)a(sa(sv))", arguments, timeout_seconds=limit_seconds
            )
        except ConnectionLostError:
            return await self._wait_for_end(unit, limit_seconds)
        except SystemdError as error:
            if error.name != UNIT_EXISTS:
                raise
            # Its name is random, so it is ours: the answer to the first call was lost.
            return await self._wait_for_end(unit, limit_seconds)
        return result == "done"

    async def _wait_for_end(self, unit: str, limit_seconds: float) -> bool:
        deadline = time.monotonic() + limit_seconds
        while (properties := await self.properties(unit))["ActiveState"] in {"activating", "deactivating"}:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{unit} did not end in time", code="systemd_unavailable")
            await asyncio.sleep(_POLL_SECONDS)
        # One that ended well is forgotten by systemd, one that failed stays until it is looked at.
        return bool(properties["ActiveState"] != "failed")

    async def _stop_quietly(self, unit: str) -> None:
        """End a transient unit with all its processes; what it leaves half done is its caller's to repair."""

        async def stop() -> None:
            with contextlib.suppress(FleetError, TimeoutError):
                async with asyncio.timeout(STOP_SECONDS + _POLL_SECONDS):
                    await self.stop(unit)
                await self.reset_failed(unit)

        # In a task of its own: a second cancellation must not leave it running either.
        await asyncio.shield(asyncio.create_task(stop()))

    async def wait_for_transients(self, name: str, *, timeout_seconds: float) -> None:
        """Wait until the commands that a dead executor left running in units of this name have ended.

        Raises:
            UnavailableError: They did not end in time.
        """
        pattern = f"wcp360-{name}-*.service"
        deadline = time.monotonic() + timeout_seconds
        while (await self.bus.call("ListUnitsByPatterns", "asas", [["activating", "deactivating"], [pattern]]))[0]:
            if time.monotonic() > deadline:
                raise UnavailableError(f"{pattern} of an earlier executor still runs", code="systemd_unavailable")
            await asyncio.sleep(_POLL_SECONDS)

    async def _raise_failed(self, unit: str, commands: Sequence[TransientCommand], said: str) -> None:
        properties = await self.properties(unit, SERVICE_INTERFACE)
        await self.reset_failed(unit)
        exit_code = int(properties.get("ExecMainStatus", 1)) or 1
        why = str(properties.get("Result", "failed"))
        hint = None if why == "exit-code" else f"systemd says: {why}"
        raise CommandError(commands[-1].argv, exit_code, said[-STDERR_TAIL_CHARACTERS:] or why, hint=hint)


def _transient_properties(
    name: str, commands: Sequence[TransientCommand], environment: Mapping[str, str], timeout_seconds: float, output: str
) -> dict[str, Variant]:
    rows = [[resolve_program(command.argv[0]), list(command.argv), command.is_failure_ignored] for command in commands]
    variables = [f"{key}={value}" for key, value in {**ENVIRONMENT, **environment}.items()]
    return {
        "Description": Variant("s", f"WCP360: {name}"),
        "Type": Variant("s", "oneshot"),
        "ExecStart": Variant("a(sasb)", rows),
        "Environment": Variant("as", variables),
        "TimeoutStartUSec": Variant("t", int(timeout_seconds * 1_000_000)),
        "TimeoutStopUSec": Variant("t", int(STOP_SECONDS / 2 * 1_000_000)),
        # To a file that we remove: the journal need not keep pages of package names.
        "StandardOutputFileToAppend": Variant("s", output),
        "StandardErrorFileToAppend": Variant("s", output),
        "PrivateTmp": Variant("b", True),  # noqa: FBT003 - a D-Bus value
    }


@contextlib.contextmanager
def _missing_is_fine() -> Any:
    try:
        yield
    except SystemdError as error:
        if error.name not in NO_SUCH_UNIT:
            raise
