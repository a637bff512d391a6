"""Changing a host so that it can be taken back: capture, register on disk, apply, and undo in the reverse order."""

from __future__ import annotations

import itertools
import logging
from typing import Final

from agent.contract.actions import AnyAction
from agent.core import faults
from agent.core.boundary import attempt
from agent.core.context import NodeContext
from agent.core.database import DISK_FULL_CODE
from agent.core.records import StepRow
from shared.errors import ApplyError, RollbackError, UnavailableError

UNDO_SECONDS: Final = 900.0
"""Longest time for one undo, tries included (packages take a while); after that an operator must look."""
UNDO_PAUSES_SECONDS: Final = (1.0, 2.0, 5.0, 10.0, 30.0)
"""Between tries of an undo whose helper (systemd, the bus) does not answer; the last one again and again."""

_log = logging.getLogger(__name__)


class Transaction:
    """The reversible steps of one convergence."""

    def __init__(self, node: NodeContext, *, subject: str, job_id: str | None) -> None:
        self._node = node
        self.number = node.ledger.begin(subject, job_id)
        faults.at("transaction.after_begin")

    async def apply(self, resource: str, action: AnyAction) -> None:
        """Make an action true; what was there before is on disk first.

        Raises:
            ApplyError: It failed; the cause says why. Its effects, whole or half, are undone by `unwind`.
        """
        failure = await attempt(self._apply(resource, action))
        if failure is not None:
            raise ApplyError(str(failure), step=describe_step(action), is_rolled_back=False) from failure

    async def _apply(self, resource: str, action: AnyAction) -> None:
        record = await self._node.host.capture(action)
        faults.at("step.after_capture")
        step = self._node.ledger.begin_step(self.number, resource, action, record)
        faults.at("step.after_begin")
        await self._node.host.apply(action)
        faults.at("step.after_apply")
        self._node.ledger.finish_step(step)
        faults.at("step.after_done")

    async def unwind(self, resource: str | None = None) -> None:
        """Take back the steps of one resource, or of all. See `unwind`."""
        await unwind(self._node, self.number, resource)


async def unwind(node: NodeContext, transaction: int, resource: str | None = None) -> None:
    """Undo, newest first, what a transaction may have done.

    Raises:
        RollbackError: An undo failed or took too long. The transaction is marked broken; nothing after it was tried,
            because an older undo may rely on a newer one.
    """
    node.journal.database.room.release_if_low()
    for step in node.ledger.list_undoable(transaction, resource):
        faults.at("undo.before")
        failure = await attempt(_undo(node, step), timeout_seconds=UNDO_SECONDS)
        if failure is not None:
            node.ledger.mark_broken(transaction)
            name = describe_step(step.action)
            _log.error("undo failed: %s of %s", name, step.resource, exc_info=failure)
            raise RollbackError(
                f"{name} of {step.resource} could not be undone: {failure}",
                hint="Look at the host, put it right, then clear the quarantine: wcp-agent executor --clear-quarantine",
                context={"step": name, "resource": step.resource},
            ) from failure
        faults.at("undo.after_apply")
        node.ledger.mark_undone(step.number)
        faults.at("undo.after_mark")


async def _undo(node: NodeContext, step: StepRow) -> None:
    """Undo one step, again while what it needs does not answer: a restart of systemd must not quarantine the node."""
    pauses = itertools.chain(UNDO_PAUSES_SECONDS, itertools.repeat(UNDO_PAUSES_SECONDS[-1]))
    while True:
        try:
            await node.host.undo(step.action, step.undo)
        except UnavailableError as error:
            if error.code != DISK_FULL_CODE or not node.journal.database.room.release():
                name, seconds = describe_step(step.action), next(pauses)
                _log.warning("%s cannot be undone now (%s); again in %g s", name, error, seconds)
                await node.pause(seconds)
        else:
            return


def describe_step(action: AnyAction) -> str:
    """`type target`, as errors and progress name an action."""
    return f"{type(action).__struct_config__.tag} {action.target}"
