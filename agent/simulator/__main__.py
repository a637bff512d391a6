"""`python3 -m agent simulate`: a fleet in memory against a real controller.

Tokens come in the variable WCP360_TOKENS, separated by commas, one for each agent (they are used once); an empty one or
none at all for agents that are enrolled already.
"""

from __future__ import annotations

import argparse
import asyncio
import asyncio.sslproto
import contextlib
import gc
import multiprocessing
import os
import signal
import sys
import tempfile
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Final

import msgspec

from agent.bootstrap import build_registry
from agent.link.setup_errors import ExitCode, SetupError
from agent.logs import configure_logging
from agent.simulator.fleet import FleetPlan, SimulatedFleet, parse_names
from shared.errors import FleetError, InvalidInputError

TOKENS_VARIABLE: Final = "WCP360_TOKENS"  # the name of a variable
TLS_BUFFER_BYTES: Final = 16 * 1024
"""As in controller/fleet/gateway/gateway.py: 240 KiB less for each agent, which decides how many fit here."""


def run_simulate(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns the exit code."""
    configure_logging(sys.stdout)
    listed = os.environ.pop(TOKENS_VARIABLE, "")
    with contextlib.ExitStack() as stack:
        keeps_state = arguments.state_dir is not None and not arguments.in_memory
        state_dir = arguments.state_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wcp360-sim-")))
        try:
            plan = FleetPlan(
                controller_url=arguments.controller,
                names=_read_names(arguments),
                state_dir=state_dir,
                tokens=tuple(listed.split(",")) if listed else (),
                keeps_state=keeps_state,
            )
            _run_all(plan, arguments.processes)
        except FleetError as error:
            sys.stderr.write(f"error: {error.message}\n")
            return error.exit_code if isinstance(error, SetupError) else ExitCode.UNEXPECTED
    return ExitCode.OK


def _read_names(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.names_file is None:
        return parse_names(arguments.names, arguments.count)
    try:
        lines = arguments.names_file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"{arguments.names_file} cannot be read: {error}", field="names_file") from error
    return parse_names(",".join(lines), 0)


def _run_all(plan: FleetPlan, processes: int) -> None:
    """Run the agents in this process, or spread over as many as were asked for."""
    if processes < 1:
        raise InvalidInputError("it takes at least one process", field="processes")
    if processes == 1:
        asyncio.run(_run(plan))
        return
    outcomes = asyncio.run(SimulatedFleet(plan, build_registry()).enrol())
    _say_enrolled(len(outcomes))
    start = multiprocessing.get_context("spawn").Process
    children = [start(target=_run_part, args=(part,), name="simulator") for part in split_plan(plan, processes)]
    for child in children:
        child.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: _end(children))
    for child in children:
        child.join()


def split_plan(plan: FleetPlan, processes: int) -> list[FleetPlan]:
    """Every agent in exactly one part; they are enrolled by now, so the parts hold no tokens."""
    parts = (plan.names[number::processes] for number in range(processes))
    return [msgspec.structs.replace(plan, names=names, tokens=()) for names in parts if names]


def _run_part(plan: FleetPlan) -> None:
    configure_logging(sys.stdout)
    asyncio.run(_run(plan, is_part=True))


def _end(children: list[SpawnProcess]) -> None:
    for child in children:
        if child.is_alive():
            child.terminate()


def _say_enrolled(count: int) -> None:
    sys.stdout.write(f"{count} simulated agents are enrolled\n")
    sys.stdout.flush()


async def _run(plan: FleetPlan, *, is_part: bool = False) -> None:
    asyncio.sslproto.SSLProtocol.max_size = TLS_BUFFER_BYTES
    fleet = SimulatedFleet(plan, build_registry())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    outcomes = await fleet.enrol()
    if not is_part:
        _say_enrolled(len(outcomes))
    fleet.start()
    gc.freeze()  # thousands of agents live as long as this process: no round of the collector need look at them
    agents = asyncio.create_task(fleet.wait())
    stopping = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait((agents, stopping), return_when=asyncio.FIRST_COMPLETED)
        if agents.done():
            await agents
    finally:
        stopping.cancel()
        await fleet.stop()
        agents.cancel()
        await asyncio.gather(agents, stopping, return_exceptions=True)
