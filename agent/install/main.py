"""install, enrol, uninstall, status: an error ends as one sentence, one hint and an exit code."""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

from agent.install.checks import require_root
from agent.install.installer import Installer, InstallOptions
from agent.install.layout import find_agent_user
from agent.install.status import show_status
from agent.install.uninstall import uninstall
from agent.link.enrolment import Enroller, EnrolmentOptions
from agent.link.enrolment_keys import prepare_request
from agent.link.settings import NodePaths
from agent.link.setup_errors import ExitCode, SetupError
from shared.errors import FleetError

TOKEN_VARIABLE: Final = "WCP360_TOKEN"  # noqa: S105 - the name of a variable, not a token


def run_install(arguments: argparse.Namespace) -> int:
    options = InstallOptions(
        controller_url=arguments.controller,
        token=_take_token(),
        bundle=Path(__file__).resolve().parent.parent.parent,
        is_forced=arguments.re_enrol,
    )
    return _run(_install(options))


async def _install(options: InstallOptions) -> int:
    await Installer(NodePaths(), options, _say).install()
    return ExitCode.OK


def run_enrol(arguments: argparse.Namespace) -> int:
    """Only the enrolment, on a machine whose directories exist; the installer does this and the rest."""
    return _run(_enrol(arguments))


async def _enrol(arguments: argparse.Namespace) -> int:
    require_root()
    if arguments.prepare:
        csr_hash = prepare_request(NodePaths(), hostname=socket.gethostname(), owner=None)
        _say(f"The hash of this machine's request: {csr_hash}")
        _say(f"On the desk: wcp360 enrolment-tokens create --approval prestaged --csr-hash {csr_hash}")
        return ExitCode.OK
    if arguments.controller is None:
        raise SetupError(ExitCode.USAGE, "--controller is needed", hint="Only --prepare goes without.")
    options = EnrolmentOptions(
        controller_url=arguments.controller,
        token=_take_token(),
        agent_owner=find_agent_user(),
        is_forced=arguments.re_enrol,
    )
    outcome = await asyncio.to_thread(Enroller(NodePaths(), options, say=_say).enrol)
    _say(f"{'Enrolled' if outcome.is_new else 'Already enrolled'}: node {outcome.node_id}")
    return ExitCode.OK


def run_uninstall(arguments: argparse.Namespace) -> int:
    return _run(_uninstall(is_purge=arguments.purge_accounts))


async def _uninstall(*, is_purge: bool) -> int:
    await uninstall(NodePaths(), is_purge=is_purge, say=_say)
    return ExitCode.OK


def run_status(_arguments: argparse.Namespace) -> int:
    return _run(show_status(NodePaths(), _say))


def _take_token() -> str:
    """The token comes by environment only: argv is visible to every user of the machine."""
    token = os.environ.pop(TOKEN_VARIABLE, "")
    if not token.strip():
        raise SetupError(
            ExitCode.TOKEN_MALFORMED,
            f"the variable {TOKEN_VARIABLE} holds no token",
            hint="Copy the whole line that the controller printed.",
        )
    return token


def _run(command: Coroutine[Any, Any, int]) -> int:
    try:
        return asyncio.run(command)
    except SetupError as error:
        _complain(error)
        return error.exit_code
    except FleetError as error:
        _complain(error)
        return ExitCode.UNEXPECTED
    except KeyboardInterrupt:
        sys.stderr.write("\nInterrupted. Paste the same command again to go on.\n")
        return 130  # 128 + SIGINT, as shells report it


def _complain(error: FleetError) -> None:
    sys.stderr.write(f"error: {error.message}\n")
    if error.hint:
        sys.stderr.write(f"hint:  {error.hint}\n")


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()
