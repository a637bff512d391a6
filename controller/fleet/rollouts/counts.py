"""How many members of each rollout stand where, wave by wave: for a page of rollouts with one question."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.fleet.rollouts.models import RolloutNodeState

WaveCounts = dict[tuple[int, RolloutNodeState], int]
"""Wave (from 0) and state to a number of members."""


async def count_members(session: AsyncSession, members: Any, rollout_ids: Sequence[str]) -> dict[str, WaveCounts]:
    """The counts of each rollout; `members` is the table of what goes with them (`rollout_id`, `wave`, `state`)."""
    counts: dict[str, WaveCounts] = {rollout_id: {} for rollout_id in rollout_ids}
    columns = (members.rollout_id, members.wave, members.state)
    statement = select(*columns, func.count()).where(members.rollout_id.in_(rollout_ids)).group_by(*columns)
    for rollout_id, wave, state, count in (await session.execute(statement)).all():
        counts[rollout_id][wave, RolloutNodeState(state)] = count
    return counts
