"""`python3 -m agent COMMAND`: every process of a node starts here, and loads only what it needs.

Nothing of the product is imported before the command is known: the link must not carry what the executor needs, nor the
other way round, and on a node the libraries become importable only by the lines below.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

Runner = Callable[[argparse.Namespace], int]

# Command to where its runner is.
_RUNNERS: Final = {
    "link": "agent.link.main:run_link",
    "executor": "agent.bootstrap:run_executor",
    "worker": "agent.workers.main:run_worker",
    "enrol": "agent.install.main:run_enrol",
    "install": "agent.install.main:run_install",
    "uninstall": "agent.install.main:run_uninstall",
    "status": "agent.install.main:run_status",
    "updater": "agent.update.server:run_updater",
    "self-test": "agent.update.self_test:run_self_test",
    "simulate": "agent.simulator.__main__:run_simulate",
}


def list_bundled_libraries(program_dir: Path, version: tuple[int, int]) -> list[Path]:
    """The folders of a bundle with libraries for this Python; none in a checkout or a virtual environment."""
    folders = (program_dir / "lib" / f"py{version[0]}{version[1]}", program_dir / "lib" / "common")
    return [folder for folder in folders if folder.is_dir()]


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options."""
    parser = argparse.ArgumentParser(prog="wcp-agent", description="The WCP360 agent of this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    commands.add_parser("link", help="keep the connection to the controller (wcp-agent.service)")
    executor = commands.add_parser("executor", help="carry out signed jobs (wcp-executor.service)")
    executor.add_argument("--clear-quarantine", action="store_true", help="take jobs again: the host was put right")
    commands.add_parser("worker", help="touch a tenant's files as the tenant (systemd starts it for the executor)")
    commands.add_parser("status", help="show what this machine is")
    commands.add_parser("updater", help="put signed releases in place (wcp-updater.service)")
    commands.add_parser("self-test", help="see whether this release works on this machine; changes nothing")
    for name, text in (
        ("enrol", "make this machine known to a controller, and nothing else"),
        ("install", "make this machine a node (install.sh does it)"),
    ):
        command = commands.add_parser(name, help=text, epilog="The token comes in the variable WCP360_TOKEN.")
        is_needed = name != "enrol"  # its --prepare talks to nobody
        command.add_argument("--controller", required=is_needed, metavar="URL", help="https://panel.example.com:8360")
        if name == "enrol":
            command.add_argument("--prepare", action="store_true", help="make the key, show the hash of its request")
        command.add_argument("--re-enrol", action="store_true", help="with new keys, though it is a node already")
    removal = commands.add_parser("uninstall", help="take the agent off this machine")
    removal.add_argument("--purge-accounts", action="store_true", help="delete the hosted accounts with all their data")
    simulate = commands.add_parser(
        "simulate",
        help="many agents over in-memory hosts, for tests and load",
        epilog="Tokens come in the variable WCP360_TOKENS, separated by commas, one for each agent.",
    )
    simulate.add_argument("--controller", required=True, metavar="URL")
    simulate.add_argument("--count", type=int, default=1, metavar="N", help="sim-1 to sim-N")
    simulate.add_argument("--names", metavar="A,B", help="instead of --count")
    simulate.add_argument("--names-file", type=Path, metavar="FILE", help="the same, one name in a line")
    simulate.add_argument("--state-dir", type=Path, help="keep the agents' keys here and take them up again")
    simulate.add_argument("--in-memory", action="store_true", help="keep keys only; journals, spools, hosts in memory")
    simulate.add_argument("--processes", type=int, default=1, metavar="P", help="spread the agents over so many")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command and return its exit code."""
    program_dir = Path(__file__).resolve().parent.parent
    sys.path[:0] = [str(folder) for folder in list_bundled_libraries(program_dir, sys.version_info[:2])]
    arguments = build_parser().parse_args(argv)
    module_name, _, function_name = _RUNNERS[arguments.command].partition(":")
    runner: Runner = getattr(importlib.import_module(module_name), function_name)
    return runner(arguments)


if __name__ == "__main__":
    sys.exit(main())
