"""Steps that every change in waves takes, whatever it reaches: its rows brought to what was decided (plan)."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from controller.fleet.rollouts.models import InWave, InWaves, RolloutNodeState, RolloutState
from controller.fleet.rollouts.plan import Progress, Standing, Verdict, judge_progress
from shared.errors import ConflictError


def end(row: InWave, state: RolloutNodeState, note: str, *, now: datetime, code: str | None = None) -> None:
    """One of them is done."""
    row.state, row.note, row.error_code = state, note[:2000], code[:64] if code else None
    row.finished_at, row.lost_at = now, None


def try_again(row: InWave) -> None:
    """One that failed waits for its turn as if it had never been asked."""
    row.state, row.error_code, row.note = RolloutNodeState.WAITING, None, "tried again"
    row.finished_at = row.job_id = row.lost_at = None


def watch(row: InWave, *, is_well: bool, patience: timedelta, now: datetime) -> None:
    """A node that is gone after the change is the worst of failures, if it stays away."""
    if is_well:
        row.lost_at = None
    elif row.lost_at is None:
        row.lost_at = now
    elif now - row.lost_at > patience:
        end(row, RolloutNodeState.FAILED, "not connected since the change", code="node_lost", now=now)


def judge(rollout: InWaves, standings: Sequence[Standing], *, noun: str, now: datetime) -> Verdict:
    """Decide how it goes on, and write into its row which wave is under way and what it waits for."""
    progress = Progress(
        wave=rollout.wave,
        healthy_since=rollout.healthy_since,
        soak=timedelta(seconds=rollout.soak_seconds),
        failures_allowed=rollout.max_failures + rollout.failures_forgiven,
        noun=noun,
    )
    verdict = judge_progress(standings, progress, now=now)
    rollout.wave, rollout.healthy_since = verdict.wave, verdict.healthy_since
    rollout.blocked_by = verdict.blocked_by
    if verdict.is_finished:
        rollout.finished_at = now
    return verdict


def require_state(rollout: InWaves, *states: RolloutState) -> None:
    """Pass when it is in one of these.

    Raises:
        ConflictError: It is not.
    """
    if rollout.state not in states:
        raise ConflictError(f"the rollout is {rollout.state.value}")


def why_not_now(*, is_connected: bool, is_held: bool, is_cordoned: bool = False) -> str:
    """Why a node cannot take a change now; empty when it can."""
    if not is_connected:
        return "not connected"
    if is_held:
        return "in maintenance or being drained"
    return "cordoned" if is_cordoned else ""
