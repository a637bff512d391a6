"""What the packages of a person's accounts ask of the person, and whether they let programs act for the person.

A person is a client's, and a client may have several accounts with a package each: whatever one of them asks counts
(a second factor, few sessions, certain networks), and what one of them allows is allowed (API tokens). People of the
platform and of resellers have no account, so no package says anything about them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from controller.core.accounts.models import Account
from controller.core.auth.networks import is_within
from controller.core.limits.check import feature_disabled
from controller.core.limits.registry import API
from controller.core.packages.models import Package, PackageVersion
from shared.errors import ForbiddenError


@dataclass(frozen=True, slots=True)
class PackagePolicy:
    """The strictest of all that was asked."""

    is_two_factor_required: bool = False
    sessions_max: int | None = None
    """None: as the controller's own rules say."""
    networks: tuple[tuple[str, ...], ...] = ()
    """One must be within each of these lists."""
    has_tokens: bool = True
    """Whether at least one has API tokens; without an account nothing speaks against them."""

    def limit_sessions(self, otherwise: int) -> int:
        """How many sessions there may be; a package never allows more than the controller does."""
        return otherwise if self.sessions_max is None else min(otherwise, self.sessions_max)

    def require_let_in(self, address: str, username: str) -> None:
        """Pass when every package lets this address in.

        Raises:
            ForbiddenError: One does not (`network_refused`).
        """
        if all(is_within(address, networks) for networks in self.networks):
            return
        raise ForbiddenError(
            f"{username} may not come from {address or 'nowhere'}: the package of an account says from where",
            code="network_refused",
            hint="Come from one of the networks in the package's security options, or have them changed.",
        )

    def require_tokens(self, username: str) -> None:
        """Pass when a package lets programs act for this person.

        Raises:
            ForbiddenError: None does (`feature_disabled`).
        """
        if not self.has_tokens:
            raise feature_disabled(
                API,
                f"no package of {username}'s accounts has API tokens",
                hint="Sign in instead (wcp360 auth login), or ask for a package with the feature api.",
            )


NOTHING_ASKED: Final = PackagePolicy()


def combine_policies(options: Iterable[Mapping[str, Any]], flags: Iterable[Mapping[str, Any]] = ()) -> PackagePolicy:
    """What these packages ask together; each as `packages.options` and `packages.flags` have it.

    What is left out of the options is not asked; what is left out of the flags is as the registry of limits says.
    """
    required, sessions, networks = False, [], []
    for each in options:
        required = required or bool(each.get("security.is_two_factor_required"))
        if each.get("security.sessions_max") is not None:
            sessions.append(int(each["security.sessions_max"]))
        if each.get("security.allowed_networks"):
            networks.append(tuple(each["security.allowed_networks"]))
    return PackagePolicy(
        is_two_factor_required=required,
        sessions_max=min(sessions, default=None),
        networks=tuple(dict.fromkeys(networks)),
        has_tokens=any([bool(each.get(API.key, API.is_on_by_default)) for each in flags] or [True]),
    )


async def read_package_policy(session: AsyncSession, client_id: str | None) -> PackagePolicy:
    """What the packages of this client's accounts ask; a pinned account's as its version says."""
    return NOTHING_ASKED if client_id is None else combine_policies(await read_package_options(session, client_id))


async def read_package_options(session: AsyncSession, client_id: str) -> list[Mapping[str, Any]]:
    """`packages.options` of each package that the client's accounts have; a pinned account's version."""
    statement = (
        select(Package.id, Account.package_version_id)
        .join(Account, Account.package_id == Package.id)
        .where(Account.client_id == client_id, Account.deleted_at.is_(None))
        .distinct()
    )
    found: list[Mapping[str, Any]] = []
    for package_id, version_id in (await session.execute(statement)).all():
        terms: Package | PackageVersion = (
            await session.get_one(PackageVersion, version_id)
            if version_id is not None
            else await session.get_one(Package, package_id)
        )
        found.append(terms.options)
    return found
