"""`python3 -m agent self-test`: whether this code works on this machine, before anything depends on it.

Run by the updater of the release before, from the folder of the new one. It changes nothing and needs no network.
"""

from __future__ import annotations

import argparse
import importlib
import sys
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from agent.bootstrap import build_registry
from agent.core.journal import Journal
from agent.link.settings import NodePaths, read_agent_settings
from agent.link.spool import Spool
from shared.protocol.envelope import JOB_TYPE, sign_envelope, verify_envelope

# Each process of a node begins with one of these; what they import is all that a node ever loads.
ENTRY_POINTS: Final = ("agent.link.main", "agent.bootstrap", "agent.update.server", "agent.install.main")


def run_self_test(_arguments: argparse.Namespace) -> int:
    """Exit code 0, or an error that says what does not work."""
    for name in ENTRY_POINTS:
        importlib.import_module(name)
    modules = build_registry().versions
    if not modules:
        sys.stderr.write("this release brings no module\n")
        return 1
    key = Ed25519PrivateKey.generate()
    verify_envelope(
        sign_envelope(JOB_TYPE, b"self-test", {"test": key}), payload_type=JOB_TYPE, keys={"test": key.public_key()}
    )
    Journal(None).close()
    Spool(None).close()
    read_agent_settings(NodePaths())
    sys.stdout.write(f"ok: {', '.join(sorted(modules))}\n")
    return 0
