"""The command line of a lab: parses, calls the library, prints. Results on stdout, progress and errors on stderr."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from wcplab import boot, check, image, recipe, state
from wcplab.errors import CannotBootError, LabError
from wcplab.lab import Lab, print_progress
from wcplab.node import Node, NodeStatus
from wcplab.paths import lab_of_node
from wcplab.process import CLEAN_ENVIRONMENT

DEFAULT_LAB = "run"
"""The fleet of `make run`; tests name their own."""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    parser = argparse.ArgumentParser(prog="wcp-lab", description="A fleet of real Debian nodes on this machine.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = _adder(commands)
    command("check", run_check, "can this machine boot nodes? (exit code 3: no)", has_json=True)
    found = command("image", run_image, "build the node images that are missing", has_json=True)
    found.add_argument("suites", nargs="*", default=list(recipe.SUITES), metavar="SUITE")
    found = command("up", run_up, "make sure that a lab's nodes are up", has_json=True)
    _add_lab(found)
    found.add_argument("--nodes", type=int, default=2)
    found.add_argument("--suite", "--suites", dest="suites", type=parse_suites, metavar="A,B",
                       help="Debian release of each node, started over when too few (default bookworm)")  # fmt: skip
    found.add_argument("--storage", choices=state.STORAGES,
                       help="what /srv/accounts is (default btrfs)")  # fmt: skip
    found = command("status", run_status, "what the nodes of a lab (or of all labs) are doing", has_json=True)
    found.add_argument("--lab")
    _add_lab(command("stop", run_stop, "shut all nodes down, keep their disks"))
    _add_lab(command("down", run_down, "remove a lab and everything it made"))
    _add_node_commands(command)
    return parser


def _add_node_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    found = command("shell", run_shell, "run a command in a node, or a shell: shell NODE [-- CMD...]")
    found.add_argument("node")
    found.add_argument("argv", nargs=argparse.REMAINDER, metavar="-- CMD")
    found = command("push", run_push, "copy a file or directory into a node")
    for name in ("node", "source", "destination"):
        found.add_argument(name)
    found = command("pull", run_pull, "copy a file or directory out of a node")
    for name in ("node", "source", "destination"):
        found.add_argument(name)
    for name, handler, text in (
        ("start", run_start, "boot a node from its disk"),
        ("kill", run_kill, "cut a node's power"),
        ("cut", run_cut, "pull a node's network cable"),
        ("heal", run_heal, "plug it in again"),
        ("reset", run_reset, "give a node a fresh disk and boot it"),
    ):
        command(name, handler, text).add_argument("node")


def _adder(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> Callable[..., argparse.ArgumentParser]:
    def add(
        name: str, handler: Callable[[argparse.Namespace], int], text: str, *, has_json: bool = False
    ) -> argparse.ArgumentParser:
        parser = commands.add_parser(name, help=text, description=text)
        parser.set_defaults(handler=handler, json=False)
        if has_json:
            parser.add_argument("--json", action="store_true", help="machine-readable result on stdout")
        return parser

    return add


def _add_lab(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--lab", default=DEFAULT_LAB)


def parse_suites(text: str) -> list[str]:
    """Parse a comma-separated list of suites."""
    return [part for part in text.split(",") if part]


def run_check(arguments: argparse.Namespace) -> int:
    """Print whether this machine can boot nodes; 3 when it cannot."""
    findings = check.check_machine()
    if arguments.json:
        print(json.dumps([asdict(finding) for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok' if finding.is_ok else 'NO':3}{finding.name:16}{finding.detail}".rstrip())
    return 0 if all(finding.is_ok for finding in findings) else CannotBootError.exit_code


def run_image(arguments: argparse.Namespace) -> int:
    """Build what is missing and print where each image is."""
    check.require_machine()
    images = image.ensure_images(arguments.suites, print_progress)
    if arguments.json:
        print(json.dumps([asdict(found) for found in images.values()]))
    else:
        for found in images.values():
            print(f"{found.key:24}{found.size_bytes // 2**20:6} MiB  built in {found.build_seconds} s  {found.root}")
    return 0


def run_up(arguments: argparse.Namespace) -> int:
    """Bring a lab up and print its nodes."""
    check.require_machine()
    lab = Lab(arguments.lab)
    nodes = lab.up(arguments.nodes, suites=arguments.suites, storage=arguments.storage)
    if arguments.json:
        print(json.dumps({"lab": lab.name, "host_address": lab.host_address, "nodes": [describe(n) for n in nodes]}))
    else:
        for node in nodes:
            print(f"{node.name:16}{node.suite:10}{node.address}")
    return 0


def describe(node: Node) -> dict[str, object]:
    """Return what is fixed about a node, for JSON."""
    return {"name": node.name, "suite": node.suite, "address": node.address, "storage": node.definition.storage}


def run_status(arguments: argparse.Namespace) -> int:
    """Print what the nodes are doing."""
    check.require_machine()
    names = [arguments.lab] if arguments.lab else state.list_labs()
    labs = [(name, Lab(name).status()) for name in names]
    if arguments.json:
        print(json.dumps([{"lab": name, "nodes": [asdict(status) for status in found]} for name, found in labs]))
        return 0
    for _, statuses in labs:
        for status in statuses:
            print(render_status(status))
    return 0


def render_status(status: NodeStatus) -> str:
    """Return one line about a node."""
    uptime = "" if status.uptime_seconds is None else f"up {status.uptime_seconds:.0f} s, pid {status.leader_pid}"
    current = f"{status.state}, cut" if status.is_cut else status.state
    return f"{status.name:16}{status.suite:10}{status.address:15}{current:14}{uptime}".rstrip()


def run_stop(arguments: argparse.Namespace) -> int:
    """Shut a lab's nodes down."""
    check.require_machine()
    Lab(arguments.lab).stop()
    return 0


def run_down(arguments: argparse.Namespace) -> int:
    """Remove a lab."""
    check.require_machine()
    Lab(arguments.lab).down()
    return 0


def run_shell(arguments: argparse.Namespace) -> int:
    """Run a command in a node with this terminal, and return its exit code."""
    leader = find_node(arguments.node).require_leader()
    argv = without_separator(arguments.argv) or ["bash", "--login"]
    environment = {**CLEAN_ENVIRONMENT, "TERM": os.environ.get("TERM", "dumb")}
    ended = subprocess.run(boot.inside_argv(leader, argv), env=environment, check=False)
    # Source: bash(1), EXIT STATUS: a command ended by signal N counts as 128+N.
    return ended.returncode if ended.returncode >= 0 else 128 - ended.returncode


def without_separator(argv: Sequence[str]) -> list[str]:
    """Return the command of `NODE -- CMD...`; whether argparse keeps the dashes depends on the version of Python."""
    return list(argv[1:] if argv[:1] == ["--"] else argv)


def run_push(arguments: argparse.Namespace) -> int:
    """Copy into a node."""
    find_node(arguments.node).push(Path(arguments.source), arguments.destination)
    return 0


def run_pull(arguments: argparse.Namespace) -> int:
    """Copy out of a node."""
    find_node(arguments.node).pull(arguments.source, Path(arguments.destination))
    return 0


def run_start(arguments: argparse.Namespace) -> int:
    """Boot a node."""
    find_node(arguments.node)
    Lab(lab_of_node(arguments.node)).start_node(arguments.node)
    return 0


def run_kill(arguments: argparse.Namespace) -> int:
    """Cut a node's power."""
    find_node(arguments.node)
    Lab(lab_of_node(arguments.node)).kill_node(arguments.node)
    return 0


def run_cut(arguments: argparse.Namespace) -> int:
    """Pull a node's cable."""
    find_node(arguments.node).cut()
    return 0


def run_heal(arguments: argparse.Namespace) -> int:
    """Plug a node's cable in."""
    find_node(arguments.node).heal()
    return 0


def run_reset(arguments: argparse.Namespace) -> int:
    """Give a node a fresh disk."""
    find_node(arguments.node)
    Lab(lab_of_node(arguments.node)).reset_node(arguments.node)
    return 0


def find_node(name: str) -> Node:
    """Return a node by its name, for commands that need root.

    Raises:
        LabError: there is none.
    """
    check.require_machine()
    return Lab(lab_of_node(name)).node(name)


def main(arguments: Sequence[str]) -> int:
    """Run one command. Exit codes: 0 done, 1 failed, 2 wrong arguments, 3 this machine cannot boot nodes."""
    parsed = build_parser().parse_args(list(arguments))
    try:
        return int(parsed.handler(parsed))
    except LabError as error:
        print(f"wcp-lab: {error.message}", file=sys.stderr)
        if error.hint:
            print(f"hint: {error.hint}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("wcp-lab: interrupted; `wcp-lab up` resumes, `wcp-lab down` cleans up", file=sys.stderr)
        return 130
