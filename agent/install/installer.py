"""The one-shot installation, step by step."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from agent.install import code, layout, units
from agent.install.checks import require_node_machine
from agent.install.uninstall import remove_agent
from agent.link.enrolment import Enroller, EnrolmentOptions, EnrolmentOutcome
from agent.link.enrolment_http import parse_endpoint, require_port_open
from agent.link.settings import NodePaths
from agent.link.setup_errors import ExitCode, SetupError
from agent.link.status_file import LinkState, LinkStatus, read_status
from shared.errors import InvalidInputError
from shared.protocol.enrolment import parse_enrolment_token

WELCOME_SECONDS: Final = 90.0
UPDATE_STATE_FILE: Final = "state.json"
"""agent.update.state.STATE_FILE, which builds on this package."""
_POLL_SECONDS: Final = 0.2

# After these the same request can still succeed: the controller may have it already, so the keys stay.
_RESUMABLE: Final = (ExitCode.CONTROLLER_UNREACHABLE, ExitCode.BAD_ANSWER, ExitCode.APPROVAL_TIMEOUT)


class InstallOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What the installer is told."""

    controller_url: str
    token: str
    bundle: Path
    is_forced: bool = False
    """Enrol anew although the machine is a node already."""


class Installer:
    """One run. `say` gets a line for the person who watches."""

    def __init__(self, paths: NodePaths, options: InstallOptions, say: Callable[[str], None] = print) -> None:
        self._paths = paths
        self._options = options
        self._say = say
        self._changes: list[str] = []

    async def install(self) -> EnrolmentOutcome:
        """Make the machine a node of the controller, or see that it is one.

        Changes: users, /opt/wcp360, /etc/wcp360, /var/lib/wcp360-*, /srv/accounts, /etc/systemd/system.

        Raises:
            SetupError: With the exit code that belongs to the reason.
        """
        require_node_machine(self._paths.root)
        self._require_token()
        info = code.read_bundle_info(self._options.bundle)
        outcome = await self._enrol()
        self._ensure_code(info)
        unit_changes = units.ensure_unit_files(self._options.bundle / "units", self._paths.root)
        self._changes += [f"unit {name}" for name in unit_changes]
        is_running = await units.is_active("wcp-agent.service")
        if self._changes or not is_running:
            self._say("Starting the agent ...")
            await units.start_units(is_changed=bool(self._changes))
        status = await self._wait_for_welcome(outcome)
        code.prune_versions(self._paths.program_dir)
        self._summarise(outcome, info, status, was_started=not is_running)
        return outcome

    def _require_token(self) -> None:
        try:
            parse_enrolment_token(self._options.token)
        except InvalidInputError as error:
            raise SetupError(ExitCode.TOKEN_MALFORMED, error.message, hint=error.hint) from error

    async def _enrol(self) -> EnrolmentOutcome:
        had_user = layout.find_agent_user() is not None
        if await layout.ensure_agent_user(self._paths):
            self._changes.append("user wcp-agent")
        agent = layout.find_agent_user()
        if agent is None:
            raise SetupError(ExitCode.UNEXPECTED, "the user wcp-agent could not be made")
        made = layout.ensure_directories(self._paths, agent)
        self._changes += [f"directory {path}" for path in made]
        options = EnrolmentOptions(
            controller_url=self._options.controller_url,
            token=self._options.token,
            agent_owner=agent,
            is_forced=self._options.is_forced,
        )
        try:
            outcome = await asyncio.to_thread(Enroller(self._paths, options, say=self._say).enrol)
        except SetupError as error:
            if not had_user and not self._is_resumable(error):
                # Refused on a bare machine: leave it as bare as it was.
                await remove_agent(self._paths)
            raise
        if outcome.is_new:
            self._changes.append("enrolment")
            self._say(f"Enrolled as {outcome.node_name or outcome.node_id}.")
        return outcome

    def _is_resumable(self, error: SetupError) -> bool:
        return error.exit_code in _RESUMABLE and self._paths.pending_csr.exists()

    def _ensure_code(self, info: code.BundleInfo) -> None:
        before = code.find_current_build(self._paths.program_dir)
        code.ensure_version(self._options.bundle, info, self._paths.program_dir)
        if code.ensure_current(self._paths.program_dir, info.build):
            self._changes.append(f"agent {info.build}" + (f" in the place of {before}" if before else ""))
        code.ensure_current(self._paths.program_dir, info.build, link=code.UPDATER)
        # Whoever runs the installer has decided what runs here: an update that was interrupted is over.
        (self._paths.updater_state_dir / UPDATE_STATE_FILE).unlink(missing_ok=True)

    async def _wait_for_welcome(self, outcome: EnrolmentOutcome) -> LinkStatus:
        """Until the agent says that the controller welcomed it.

        Raises:
            SetupError: The gateway's port is closed, or it took too long.
        """
        deadline = time.monotonic() + WELCOME_SECONDS
        is_checked = False
        while True:
            status = read_status(self._paths.status_json)
            if status is not None and status.state is LinkState.CONNECTED:
                return status
            if status is not None and status.failures and not is_checked:
                # The first attempt failed: say at once if it is the port, instead of waiting for nothing.
                endpoint = parse_endpoint(outcome.gateway_url, scheme="wss")
                await asyncio.to_thread(require_port_open, endpoint)
                is_checked = True
            if status is not None and status.state in (LinkState.REVOKED, LinkState.REJECTED):
                raise SetupError(
                    ExitCode.NO_WELCOME,
                    status.last_error,
                    hint="If the node was removed on purpose, run the installer with --re-enrol and a new token.",
                )
            if time.monotonic() > deadline:
                raise self._explain_silence(status)
            await asyncio.sleep(_POLL_SECONDS)

    def _explain_silence(self, status: LinkStatus | None) -> SetupError:
        if status is None:
            return SetupError(
                ExitCode.SERVICE_FAILED, "the agent did not start", hint="journalctl -u wcp-agent -u wcp-executor"
            )
        return SetupError(
            ExitCode.NO_WELCOME,
            f"everything is installed, but the agent is not connected: {status.last_error or status.state.value}",
            hint="It keeps trying by itself; journalctl -u wcp-agent shows each attempt.",
        )

    def _summarise(
        self, outcome: EnrolmentOutcome, info: code.BundleInfo, status: LinkStatus, *, was_started: bool
    ) -> None:
        name = outcome.node_name or outcome.node_id
        if not self._changes and not was_started:
            self._say(f"This machine is node {name} of {self._options.controller_url} already, and it is connected.")
            self._say("Nothing was changed.")
            return
        self._say("")
        self._say(f"This machine is a node now: {name}" if outcome.is_new else f"Node {name} is up to date again:")
        for change in () if outcome.is_new else self._changes:
            self._say(f"  changed      {change}")
        self._say(f"  controller   {self._options.controller_url}")
        self._say(f"  gateway      {status.gateway_url} (connected)")
        self._say(f"  agent        {info.build}")
        self._say("  status       /opt/wcp360/current/bin/wcp-agent status")
        self._say("  remove       /opt/wcp360/current/bin/wcp-agent uninstall")
