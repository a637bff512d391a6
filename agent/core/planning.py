"""Which resources a manifest brings about or takes away, in which order, and which wait for which. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from agent.core.records import Holding
from shared.specs.account import AccountSpec
from shared.specs.base import Presence, Stage
from shared.specs.manifest import AnySpec, Manifest
from shared.specs.module import ModuleSpec
from shared.specs.php_pool import PhpPoolSpec
from shared.specs.site import SiteSpec
from shared.specs.ssh_access import SshAccessSpec


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One resource and how much of it there shall be."""

    spec: AnySpec
    presence: Presence

    @property
    def key(self) -> str:
        """The resource's key."""
        return self.spec.key

    @property
    def is_essential(self) -> bool:
        """Without it nothing of the subject makes sense: its failure unwinds the whole job."""
        return self.spec.STAGE is Stage.ACCOUNT


def plan_targets(manifest: Manifest, holdings: Mapping[str, Holding]) -> tuple[Target, ...]:
    """Order the work: bring about by stage, then take away in the reverse order.

    A suspension of what is already there goes the other way round, so that a site says 503 before its PHP stops and
    nothing wakes up again behind the account's back.
    """
    if manifest.presence is Presence.ABSENT:
        return _plan_removal_of_all(manifest, holdings)
    held = set(manifest.held)
    wanted = [Target(spec=spec, presence=_presence(spec, manifest)) for spec in manifest.specs if spec.key not in held]
    wanted += _plan_held(manifest, holdings)
    wanted.sort(key=lambda target: target.spec.STAGE)
    if manifest.presence is Presence.DISABLED and all(t.key in holdings for t in wanted if t.is_essential):
        wanted.reverse()
    named = {spec.key for spec in manifest.specs} | held
    removals = [
        Target(spec=holding.spec, presence=Presence.ABSENT) for key, holding in holdings.items() if key not in named
    ]
    removals.sort(key=lambda target: target.spec.STAGE, reverse=True)
    return (*wanted, *removals)


def plan_held_targets(holdings: Mapping[str, Holding]) -> tuple[Target, ...]:
    """What a subject holds, as targets in stage order: a plan of it that is not empty is drift."""
    targets = [Target(spec=holding.spec, presence=holding.presence) for holding in holdings.values()]
    return tuple(sorted(targets, key=lambda target: target.spec.STAGE))


def _plan_held(manifest: Manifest, holdings: Mapping[str, Holding]) -> list[Target]:
    """A parked resource keeps its last good spec, and yet is suspended and woken together with its account."""
    found = [holdings[key] for key in manifest.held if key in holdings]
    return [
        Target(spec=holding.spec, presence=manifest.presence)
        for holding in found
        if holding.presence is not manifest.presence and not isinstance(holding.spec, ModuleSpec)
    ]


def _plan_removal_of_all(manifest: Manifest, holdings: Mapping[str, Holding]) -> tuple[Target, ...]:
    """Everything that holds, and what the manifest still names: after a lost journal only the manifest knows."""
    specs: dict[str, AnySpec] = {spec.key: spec for spec in manifest.specs}
    specs.update({key: holding.spec for key, holding in holdings.items()})
    ordered = sorted(specs.values(), key=lambda spec: spec.STAGE, reverse=True)
    return tuple(Target(spec=spec, presence=Presence.ABSENT) for spec in ordered)


def _presence(spec: AnySpec, manifest: Manifest) -> Presence:
    return spec.presence if isinstance(spec, ModuleSpec) else manifest.presence


def is_needed_by(needed: AnySpec, user: AnySpec) -> bool:
    """Whether `user` cannot serve without `needed`."""
    if isinstance(user, SiteSpec) and isinstance(needed, PhpPoolSpec):
        return user.php_socket_path == needed.socket_path
    if isinstance(user, SiteSpec | PhpPoolSpec | SshAccessSpec) and isinstance(needed, AccountSpec):
        return user.account == needed.name
    return False


def find_missing_need(target: Target, parked: Iterable[Target]) -> Target | None:
    """A parked resource without which the target could not serve: bringing it about would break what works."""
    if target.presence is not Presence.ENABLED:
        return None
    return next((other for other in parked if is_needed_by(other.spec, target.spec)), None)


def find_remaining_user(target: Target, still_holding: Iterable[AnySpec]) -> AnySpec | None:
    """A resource that stays as it was and still needs the one that is to be taken away."""
    if target.presence is not Presence.ABSENT:
        return None
    return next((user for user in still_holding if is_needed_by(target.spec, user)), None)
