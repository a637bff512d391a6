"""`python3 -m agent simulate`: a fleet in memory against a real controller.

Tokens come in the variable WCP360_TOKENS, separated by commas, one for each agent (they are used once); an empty one or
none at all for agents that are enrolled already.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Final

from agent.bootstrap import build_registry
from agent.link.setup_errors import ExitCode, SetupError
from agent.logs import configure_logging
from agent.simulator.fleet import FleetPlan, SimulatedFleet, parse_names
from shared.errors import FleetError

TOKENS_VARIABLE: Final = "WCP360_TOKENS"  # the name of a variable


def run_simulate(arguments: argparse.Namespace) -> int:
    """Run until a signal; returns the exit code."""
    configure_logging(sys.stdout)
    listed = os.environ.pop(TOKENS_VARIABLE, "")
    tokens = tuple(listed.split(",")) if listed else ()
    with contextlib.ExitStack() as stack:
        keeps_state = arguments.state_dir is not None
        state_dir = arguments.state_dir or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wcp360-sim-")))
        try:
            plan = FleetPlan(
                controller_url=arguments.controller,
                names=parse_names(arguments.names, arguments.count),
                state_dir=state_dir,
                tokens=tokens,
                keeps_state=keeps_state,
            )
            asyncio.run(_run(plan))
        except FleetError as error:
            sys.stderr.write(f"error: {error.message}\n")
            return error.exit_code if isinstance(error, SetupError) else ExitCode.UNEXPECTED
    return ExitCode.OK


async def _run(plan: FleetPlan) -> None:
    fleet = SimulatedFleet(plan, build_registry())
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    outcomes = await fleet.enrol()
    sys.stdout.write(f"{len(outcomes)} simulated agents are enrolled\n")
    sys.stdout.flush()
    fleet.start()
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
