"""What a client's packages say about its people, asked for every request of theirs: one small prepared statement.

Which packages a client's accounts have is read every time, so that an edit of a package and a change of package count
from the next request on, in all processes. What a version of a package says never changes, so that is remembered.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from sqlalchemy import select

from controller.core.accounts.models import Account
from controller.core.auth.package_policy import NOTHING_ASKED, PackagePolicy, combine_policies
from controller.core.packages.models import Package, PackageVersion
from controller.core.packages.terms import Terms
from controller.db.engine import Database
from controller.db.prepared import Prepared, param

_KNOWN_MAX: Final = 4096


class _InUse(NamedTuple):
    """A package as accounts of a client have it; exactly one text for one content."""

    pinned_id: str | None
    """Id of the version that the accounts are pinned to; None: they follow the package."""
    package_id: str
    version: int
    """The package's newest one."""


_PACKAGES_IN_USE: Final = Prepared(
    select(Account.package_version_id, Package.id, Package.version)
    .join(Package, Package.id == Account.package_id)
    .where(Account.client_id == param("client_id"), Account.deleted_at.is_(None))
    .order_by(Package.id, Account.package_version_id)
    .distinct(),
    _InUse,
)


class Obligations:
    """Reads them, and remembers what each set of packages comes to."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[tuple[_InUse, ...], PackagePolicy] = OrderedDict()

    async def find(self, client_id: str | None) -> PackagePolicy:
        """Of this client's people; None: of somebody who is no client's."""
        if client_id is None:
            return NOTHING_ASKED
        used: tuple[_InUse, ...] = tuple(await self._database.glance(_PACKAGES_IN_USE, client_id=client_id))
        found = self._known.get(used)
        if found is None:
            found = await self._read(used)
            self._known[used] = found
            while len(self._known) > _KNOWN_MAX:
                self._known.popitem(last=False)
        return found

    async def _read(self, used: tuple[_InUse, ...]) -> PackagePolicy:
        """Each by its version: the package's own row may have been changed since it was named."""
        found: list[Terms] = []
        async with self._database.read() as session:
            for each in used:
                by_number = (PackageVersion.package_id == each.package_id, PackageVersion.number == each.version)
                by_id = (PackageVersion.id == each.pinned_id,)
                wanted = select(PackageVersion).where(*(by_id if each.pinned_id else by_number))
                version = (await session.scalars(wanted)).one_or_none()
                found.append(version if version is not None else await session.get_one(Package, each.package_id))
        return combine_policies([terms.options for terms in found], [terms.flags for terms in found])
