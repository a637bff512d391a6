"""Runs a golden agent over a host in memory: `PYTHONPATH=golden run_old_agent.py URL NAME STATE_DIR`.

Only names that every served release has. Says on stdout, one JSON line each, what it receives and does; takes the word
`renew` on stdin. Tokens come in WCP360_TOKENS, as for `python3 -m agent simulate`.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from agent.bootstrap import build_registry
from agent.link import session as session_module
from agent.link.renewal_exchange import renew_once
from agent.link.settings import read_agent_settings
from agent.simulator.fleet import FleetPlan, SimulatedFleet
from shared.protocol.capability import CAPABILITY_VERSION

_decode = session_module.decode_to_agent


def say(**words: Any) -> None:
    print(json.dumps(words), flush=True)


def decode_aloud(raw: bytes) -> Any:
    """What the old agent makes of a frame; None is one that it does not know."""
    frame = _decode(raw)
    say(frame=None if frame is None else type(frame).__name__)
    return frame


async def main(url: str, name: str, state_dir: Path) -> None:
    listed = os.environ.pop("WCP360_TOKENS", "")
    tokens = (listed,) if listed else ()
    fleet = SimulatedFleet(
        FleetPlan(controller_url=url, names=(name,), state_dir=state_dir, tokens=tokens), build_registry()
    )
    await fleet.enrol()
    say(capability=CAPABILITY_VERSION)
    fleet.start()
    paths = fleet.paths_of(name)
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "renew":
            await asyncio.to_thread(renew_once, read_agent_settings(paths), paths)
        say(did=word)
    await fleet.stop()


session_module.decode_to_agent = decode_aloud
asyncio.run(main(sys.argv[1], sys.argv[2], Path(sys.argv[3])))
