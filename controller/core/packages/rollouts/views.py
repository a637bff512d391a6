"""Rollouts of packages as the API takes and shows them."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import msgspec
from msgspec import Meta

from controller.core.packages.rollouts.models import PackageRollout, PackageRolloutAccount
from controller.fleet.rollouts.models import RolloutNodeState, RolloutState


class PackageRolloutResume(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to go on."""

    is_retrying: Annotated[bool, Meta(description="Try the accounts that failed again.")] = False


class PackageWaveView(msgspec.Struct, frozen=True, kw_only=True):
    """One wave."""

    size: Annotated[str, Meta(examples=["10%"])]
    accounts: int
    waiting: int
    sent: int
    succeeded: int
    failed: int
    skipped: int


class PackageRolloutView(msgspec.Struct, frozen=True, kw_only=True):
    """One edit of a package on its way over its accounts."""

    id: str
    package_id: str
    package_name: str
    version_before: int
    version: Annotated[int, Meta(description="The version that the accounts are brought to.")]
    state: RolloutState
    wave: Annotated[int, Meta(description="The wave that is under way, counted from 1.")]
    waves: tuple[PackageWaveView, ...]
    blocked_by: Annotated[str, Meta(description="What it waits for, or why it stopped.")]
    soak_seconds: int
    failures_max: int
    account_timeout_seconds: int
    deadline_at: datetime
    is_returned: Annotated[bool, Meta(description="It was taken back: everybody has what they had.")]
    actor: Annotated[str, Meta(description="kind/ID of who began it.")]
    created_at: datetime
    finished_at: datetime | None


class PackageRolloutPage(msgspec.Struct, frozen=True, kw_only=True):
    """Rollouts, newest first."""

    items: tuple[PackageRolloutView, ...]
    next_cursor: str | None


class PackageRolloutAccountView(msgspec.Struct, frozen=True, kw_only=True):
    """One account of a rollout."""

    id: str
    account_id: str
    account_name: str
    wave: Annotated[int, Meta(description="Counted from 1.")]
    state: RolloutNodeState
    note: Annotated[str, Meta(description="Why it waits, was skipped, or failed.")]
    error_code: str | None
    job_id: str | None
    version_before_id: Annotated[str, Meta(description="The version that it keeps until its wave comes.")]
    sent_at: datetime | None
    finished_at: datetime | None


class PackageRolloutAccountPage(msgspec.Struct, frozen=True, kw_only=True):
    """Accounts of a rollout."""

    items: tuple[PackageRolloutAccountView, ...]
    next_cursor: str | None


def render_package_rollout(row: PackageRollout, counts: dict[tuple[int, RolloutNodeState], int]) -> PackageRolloutView:
    """The view of a rollout; `counts` is wave and state to the number of accounts."""
    waves = tuple(_render_wave(size, index, counts) for index, size in enumerate(row.waves))
    kept = set(PackageRolloutView.__struct_fields__) - {"waves", "wave", "failures_max"}
    values = {name: getattr(row, name) for name in kept}
    return PackageRolloutView(wave=row.wave + 1, waves=waves, failures_max=row.max_failures, **values)


def _render_wave(size: str, index: int, counts: dict[tuple[int, RolloutNodeState], int]) -> PackageWaveView:
    by_state = {state.value: counts.get((index, state), 0) for state in RolloutNodeState}
    return PackageWaveView(size=size, accounts=sum(by_state.values()), **by_state)


def render_rollout_account(row: PackageRolloutAccount, account_name: str) -> PackageRolloutAccountView:
    """The view of one account of a rollout."""
    kept = set(PackageRolloutAccountView.__struct_fields__) - {"account_name", "wave"}
    values = {name: getattr(row, name) for name in kept}
    return PackageRolloutAccountView(account_name=account_name, wave=row.wave + 1, **values)
