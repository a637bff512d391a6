"""From rows to specs: each module contributes the specs of its rows; core puts them together and knows none of them.

What one module needs of another travels as a value. A site that wants PHP 8.2 contributes its own spec and the *need*
for the runtime `php 8.2`; the registry merges the needs of all contributors and asks the provider of that runtime for
the specs. Neither module imports the other, and nothing that can be derived is stored twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.limits.registry import LimitRegistry
from shared.errors import BugError
from shared.specs.manifest import AnySpec
from shared.specs.php_settings import PhpSettings
from shared.types.names import DomainName, ResourceKey, UnixName

if TYPE_CHECKING:  # both stand on this file
    from controller.core.accounts.models import Account
    from controller.core.operations import FleetContext


@dataclass(frozen=True, slots=True)
class RuntimeLimits:
    """How large one runtime of the account may be, from its package."""

    children_max: int
    memory_limit_bytes: int
    upload_max_bytes: int


@dataclass(frozen=True, slots=True)
class AccountFacts:
    """What contributors may know about the account."""

    id: str
    name: UnixName
    uid: int
    node_id: str
    runtime: RuntimeLimits
    features: frozenset[str] = frozenset()
    """What its package has switched on."""
    is_strict: bool = False
    """Its package lets it start no programs: PHP starts none, and nothing gives it a shell."""


@dataclass(frozen=True, slots=True)
class PackageRules:
    """What a package allows that no kernel enforces."""

    name: str
    php_versions: tuple[str, ...] | None
    """None: every version that the node has."""


@dataclass(frozen=True, slots=True, order=True)
class RuntimeNeed:
    """A resource wants this runtime beside it, for example php 8.2."""

    kind: str
    version: str


@dataclass(frozen=True, slots=True)
class RuntimeChoice:
    """What a site has chosen for its part of a runtime."""

    need: RuntimeNeed
    domain: DomainName
    settings: PhpSettings


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one module adds to an account's manifest."""

    specs: tuple[AnySpec, ...] = ()
    held: tuple[ResourceKey, ...] = ()
    """Keys of parked resources; their specs are left out of `specs`."""
    needs: frozenset[RuntimeNeed] = field(default_factory=frozenset)
    """Runtimes that the specs use, and those that the held resources still use as they are on the node."""
    choices: tuple[RuntimeChoice, ...] = ()
    risks: tuple[str, ...] = ()
    needs_shell: bool = False
    """The account is somebody's login."""


class ManifestContributor(Protocol):
    """One per module that has rows: reads them, returns specs, changes nothing."""

    async def contribute(self, session: AsyncSession, account: AccountFacts) -> Contribution: ...

    async def used_domains(self, session: AsyncSession, account_id: str) -> frozenset[str]:
        """Names that the module's rows need, and those that the node still serves."""
        ...

    async def require_fits(self, session: AsyncSession, account_id: str, rules: PackageRules) -> None:
        """Pass when what the account has is within the rules.

        Raises:
            QuotaExceededError: It has more.
        """
        ...

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        """No node has anything of the account any more: so must the module."""
        ...


class RuntimeProvider(Protocol):
    """One per kind of runtime: turns needs into specs. Pure."""

    def provide(
        self, account: AccountFacts, versions: Sequence[str], choices: Sequence[RuntimeChoice]
    ) -> tuple[AnySpec, ...]:
        """`choices`: of this kind of runtime, for any of its versions."""
        ...


class Cloner(Protocol):
    """One per module that has rows: gives a new account what another has, under other names."""

    async def __call__(
        self, ctx: FleetContext, source: Account, account: Account, renamed: Mapping[DomainName, DomainName], /
    ) -> frozenset[str]:
        """Old names that it took care of.

        Raises:
            FleetError: As for making each anew.
        """
        ...


class HandOver(Protocol):
    """One per module that lets people in beside the API: an account goes to another client, its logins do not."""

    async def __call__(self, ctx: FleetContext, account: Account, /) -> int:
        """Take away what lets people of the present client in, which is still in `account`; how much there was."""
        ...


class ManifestRegistry:
    """Set up once by bootstrap; afterwards read only."""

    def __init__(
        self,
        contributors: Sequence[ManifestContributor] = (),
        providers: Mapping[str, RuntimeProvider] | None = None,
        limits: LimitRegistry | None = None,
        cloners: Sequence[Cloner] = (),
        handovers: Sequence[HandOver] = (),
    ) -> None:
        """`providers`: kind of runtime to the one that provides it; `limits`: None for core's own declarations."""
        self.limits = limits or LimitRegistry()
        self._contributors = tuple(contributors)
        self._providers = dict(providers or {})
        self._cloners = tuple(cloners)
        self._handovers = tuple(handovers)

    async def collect(self, session: AsyncSession, account: AccountFacts) -> Contribution:
        """All contributions to one account: runtimes first, then the modules' specs in the order of registration.

        Raises:
            BugError: A need has no provider; bootstrap forgot one.
        """
        parts = [await contributor.contribute(session, account) for contributor in self._contributors]
        needs = frozenset(need for part in parts for need in part.needs)
        choices = tuple(choice for part in parts for choice in part.choices)
        return Contribution(
            specs=(*self._provide(account, needs, choices), *(spec for part in parts for spec in part.specs)),
            held=tuple(key for part in parts for key in part.held),
            needs=needs,
            choices=choices,
            risks=tuple(risk for part in parts for risk in part.risks),
            needs_shell=any(part.needs_shell for part in parts),
        )

    async def used_domains(self, session: AsyncSession, account_id: str) -> frozenset[str]:
        """Names that cannot be released now."""
        parts = [await contributor.used_domains(session, account_id) for contributor in self._contributors]
        return frozenset().union(*parts)

    async def require_fits(self, session: AsyncSession, account_id: str, rules: PackageRules) -> None:
        """Pass when what the account has is within the rules.

        Raises:
            QuotaExceededError: It has more.
        """
        for contributor in self._contributors:
            await contributor.require_fits(session, account_id, rules)

    async def clone(
        self, ctx: FleetContext, source: Account, account: Account, renamed: Mapping[DomainName, DomainName]
    ) -> frozenset[str]:
        """Let every module give the account what the other has; the old names that one of them took care of.

        Raises:
            FleetError: Something cannot be made; the change as a whole must not be.
        """
        parts = [await clone(ctx, source, account, renamed) for clone in self._cloners]
        return frozenset().union(*parts)

    async def hand_over(self, ctx: FleetContext, account: Account) -> int:
        """Before the account goes to another client: let every module take its logins away; how many there were."""
        return sum([await take_away(ctx, account) for take_away in self._handovers])

    async def forget(self, session: AsyncSession, account_id: str, now: datetime) -> None:
        """The account is gone from its node, and from every module."""
        for contributor in self._contributors:
            await contributor.forget(session, account_id, now)

    def _provide(
        self, account: AccountFacts, needs: frozenset[RuntimeNeed], choices: Sequence[RuntimeChoice]
    ) -> tuple[AnySpec, ...]:
        specs: list[AnySpec] = []
        for kind in sorted({need.kind for need in needs}):
            provider = self._providers.get(kind)
            if provider is None:
                raise BugError(f"no provider is registered for the runtime {kind!r}")
            versions = sorted(need.version for need in needs if need.kind == kind)
            specs += provider.provide(account, versions, [choice for choice in choices if choice.need.kind == kind])
        return tuple(specs)
