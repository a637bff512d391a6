"""Nothing is changed past the audit log: what a change may write without an entry, and a stop to all else.

Invariant: whoever writes a row in a change has noted what they did, or the row is one of the bookkeeping that is named
here. A use case that forgets it does not commit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from controller.core.context import OpContext
from controller.db.written import list_written
from shared.errors import BugError

BOOKKEEPING: Final[Mapping[str, str]] = {
    # Table: why a row of it may be written without an entry of the log.
    "account_figures": "what nodes measured",
    "account_meters": "what nodes measured",
    "account_usage": "what was counted",
    "job_transitions": "what became of a job",
    "jobs": "work for a node; a look at it changes nothing, and who asked is in the job",
    "notices": "an inbox; reading is noted when there was something to read",
    "overuse_cases": "since when an account is over a limit; what follows from it is noted",
    "tasks": "work of the controller's own; what it does is noted when it does it",
    "usage_days": "what was counted",
}
OF_NOBODY: Final[Mapping[str, str]] = {
    # The same where no person and no program of theirs is at work: the controller, a rule, a machine with a token.
    "accounts": "a generation with which a node is asked again for what it should have already",
    "deletion_certificates": "where in the log the entry of the certificate is",
    "enrolment_tokens": "how often a wrong secret was shown with it",
    "node_holds": "that somebody was told of a deadline",
    "package_rollout_accounts": "how far an edit has come; beginning, halting and finishing are noted",
    "package_rollouts": "the same",
    "password_resets": "the secret of a link that is being mailed; who asked and who followed it is noted",
    "rollout_nodes": "how far a change of the fleet has come",
    "rollouts": "the same",
    "rule_runs": "what became of a run; what it does is noted",
}
_PEOPLE: Final = frozenset({"user", "token"})


async def require_entries(ctx: OpContext) -> None:
    """To be asked at the end of each change.

    Raises:
        BugError: Something was written, and nothing noted.
    """
    if ctx.changes:
        return
    allowed = BOOKKEEPING.keys() | (OF_NOBODY.keys() if ctx.actor.kind not in _PEOPLE else ())
    unheard = sorted((await list_written(ctx.session)) - allowed)
    if unheard:
        raise BugError(f"{', '.join(unheard)} written without an entry of the audit log")
