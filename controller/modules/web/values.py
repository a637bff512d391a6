"""The part of a site that can be changed, checked field by field."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Any

import msgspec

from controller.core.domains.names import parse_host_name
from controller.core.fields import parse_field
from controller.modules.web.models import Site
from shared.errors import InvalidInputError
from shared.specs.php_pool import parse_php_version
from shared.specs.php_settings import PhpSettings
from shared.specs.site import MAX_ALIASES, SiteSpec, require_directives
from shared.types.names import DomainName
from shared.types.paths import RelativePath, parse_relative_path


class SiteValues(msgspec.Struct, frozen=True, kw_only=True):
    """What can differ between two generations of the same site."""

    aliases: tuple[DomainName, ...] = ()
    document_root: RelativePath = RelativePath("public")
    php_version: str | None = None
    extra_directives: str = ""


def parse_values(
    domain: DomainName, *, aliases: Sequence[str], document_root: str, php_version: str | None, extra_directives: str
) -> SiteValues:
    """The values in their canonical form.

    Raises:
        InvalidInputError: One is outside its rules; `field` names it.
    """
    return SiteValues(
        aliases=_parse_aliases(domain, aliases),
        document_root=parse_field("document_root", parse_relative_path, document_root),
        php_version=parse_field("php_version", parse_php_version, php_version) if php_version is not None else None,
        extra_directives=require_directives(extra_directives.replace("\r\n", "\n")),
    )


def values_of(site: Site) -> SiteValues:
    """What is wanted of the site."""
    return SiteValues(
        aliases=tuple(DomainName(alias) for alias in site.aliases),
        document_root=RelativePath(site.document_root),
        php_version=site.php_version,
        extra_directives=site.extra_directives,
    )


def settings_of(site: Site) -> PhpSettings:
    """What the site has chosen, whether or not it counts now."""
    return msgspec.convert(site.php_settings, PhpSettings)


def applied_of(site: Site) -> SiteValues | None:
    """What the node serves; None: nothing."""
    return msgspec.convert(site.applied, SiteValues) if site.applied is not None else None


def values_of_spec(spec: SiteSpec) -> SiteValues:
    """What a node was told."""
    socket = spec.php_socket_path
    return SiteValues(
        aliases=spec.aliases,
        document_root=spec.document_root,
        php_version=PurePosixPath(socket).parent.name if socket is not None else None,  # php_socket_path's own layout
        extra_directives=spec.extra_directives,
    )


def set_values(site: Site, values: SiteValues) -> None:
    """Make these what is wanted."""
    site.aliases = list(values.aliases)
    site.document_root = values.document_root
    site.php_version = values.php_version
    site.extra_directives = values.extra_directives


def freeze(values: SiteValues) -> dict[str, Any]:
    """As the column `applied` keeps it."""
    frozen: dict[str, Any] = msgspec.to_builtins(values)
    return frozen


def names_of(site: Site) -> frozenset[str]:
    """Every host name that the site has or shall have."""
    applied = applied_of(site)
    return frozenset({site.domain, *site.aliases, *(applied.aliases if applied is not None else ())})


def _parse_aliases(domain: DomainName, aliases: Sequence[str]) -> tuple[DomainName, ...]:
    if len(aliases) > MAX_ALIASES:
        raise InvalidInputError(f"a site has at most {MAX_ALIASES} aliases", field="aliases")
    parsed: list[DomainName] = []
    for position, raw in enumerate(aliases):
        name = parse_host_name(f"aliases.{position}", raw)
        if name == domain or name in parsed:
            raise InvalidInputError(f"{name} is named twice", field=f"aliases.{position}")
        parsed.append(name)
    return tuple(parsed)
