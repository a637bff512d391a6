"""Takes everything off the machine that signed jobs have put there: each subject of the ledger converges to absent.

The same plans that remove an account or a module by a job, so an uninstall cannot forget what a module owns.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from agent.bootstrap import CHECKPOINTS, build_registry
from agent.core.context import NodeContext
from agent.core.journal import Journal
from agent.core.planning import plan_targets
from agent.core.reconciler import Convergence, Reconciler
from agent.core.recovery import recover
from agent.core.watch import Watch
from agent.system.host import RealHost
from shared.errors import FleetError
from shared.specs.base import Presence
from shared.specs.manifest import NODE_SUBJECT, Manifest

SUBJECT_SECONDS: Final = 1800


async def remove_all_subjects(state_dir: Path, say: Callable[[str], None]) -> None:
    """Accounts first, then the node's own modules. What cannot be removed is said, and the rest goes on.

    Changes: whatever the ledger says that this node holds. The executor must not run.
    """
    if not (state_dir / "journal.db").exists():
        return
    registry = build_registry()
    host = RealHost(state_dir / CHECKPOINTS, tuple(registry.config_trees.values()))
    try:
        journal = Journal(state_dir)
    except FleetError as error:
        say(f"warning: {error.message}; what modules own is removed by name only")
        await host.close()
        return
    try:
        await _remove_subjects(NodeContext(host=host, registry=registry, journal=journal), say)
    finally:
        journal.close()
        await host.close()


async def _remove_subjects(node: NodeContext, say: Callable[[str], None]) -> None:
    node.journal.clear_quarantine()
    await recover(node)
    subjects = sorted(node.ledger.list_subjects(), key=lambda subject: (subject == NODE_SUBJECT, subject))
    for subject in subjects:
        holdings = node.ledger.holdings(subject)
        if not holdings:
            continue
        say("Removing the hosting modules ..." if subject == NODE_SUBJECT else f"Removing {subject} ...")
        manifest = Manifest(subject=subject, generation=1, presence=Presence.ABSENT)
        request = Convergence(
            subject=subject, targets=plan_targets(manifest, holdings), max_runtime_seconds=SUBJECT_SECONDS
        )
        try:
            result = await Reconciler(node).converge(request, watch=Watch())
        except FleetError as error:
            say(f"warning: {subject} could not be removed: {error.message}")
            continue
        if result.error is not None:
            say(f"warning: {subject} could not be removed: {result.error.message}")
