"""A site: host names that are served from a folder of an account."""

from __future__ import annotations

import hashlib
from typing import ClassVar, Final

from shared.errors import InvalidInputError
from shared.specs.base import Spec, Stage
from shared.specs.nginx_block import require_contained
from shared.types.names import DomainName, ResourceKey, UnixName, parse_domain_name, parse_unix_name
from shared.types.paths import RelativePath, parse_relative_path

SITE_LOGS_DIR: Final = "/var/log/wcp360/sites"
"""One folder for each account below it."""
MAX_ALIASES: Final = 100
MAX_DIRECTIVES_LENGTH: Final = 16_384
_LONGEST_STEM: Final = 200
"""A file name has 255 bytes at most, and rotation adds to it; a domain may have 253."""


class SiteSpec(Spec, frozen=True, kw_only=True, tag="site"):
    """One nginx server with its host names."""

    STAGE: ClassVar[Stage] = Stage.SITE

    account: UnixName
    uid: int
    domain: DomainName
    aliases: tuple[DomainName, ...] = ()
    """Further host names of the same site, at most MAX_ALIASES."""
    document_root: RelativePath = RelativePath("public")
    """Relative to the site's own folder, ~/sites/DOMAIN."""
    php_socket_path: str | None = None
    """Where PHP answers; None serves files only."""
    upload_max_bytes: int = 64 * 1024 * 1024
    extra_directives: str = ""
    """nginx directives of an administrator, put inside the server block; nginx itself judges them."""

    def __post_init__(self) -> None:
        parse_unix_name(self.account)
        for name in (self.domain, *self.aliases):
            if parse_domain_name(name) != name:
                raise InvalidInputError(f"{name!r} is not in its canonical form", field="domain")
        if len(self.aliases) > MAX_ALIASES:
            raise InvalidInputError(f"a site has at most {MAX_ALIASES} aliases", field="aliases")
        if len({self.domain, *self.aliases}) != 1 + len(self.aliases):
            raise InvalidInputError("a host name is named twice", field="aliases")
        parse_relative_path(self.document_root)
        require_directives(self.extra_directives)

    @property
    def key(self) -> ResourceKey:
        return ResourceKey(f"site/{self.domain}")


def site_file_stem(domain: str) -> str:
    """A file name for a domain, shortened with a digest where the whole would be too long."""
    if len(domain) <= _LONGEST_STEM:
        return domain
    return f"{domain[:160]}~{hashlib.sha256(domain.encode()).hexdigest()[:16]}"


def site_log_name(domain: str, log: str) -> str:
    """The file of a site's `access` or `error` log, in its account's folder below SITE_LOGS_DIR."""
    return f"{site_file_stem(domain)}.{log}.log"


def require_directives(text: str) -> str:
    """Return the text if it stays inside its server block, whatever else it says (nginx judges the rest on the node).

    Raises:
        InvalidInputError: It is too long, has control characters, or would leave its block.
    """
    if len(text) > MAX_DIRECTIVES_LENGTH:
        raise InvalidInputError(f"at most {MAX_DIRECTIVES_LENGTH} characters", field="extra_directives")
    if any(ord(character) < 32 and character not in "\n\t" for character in text):
        raise InvalidInputError("control characters are not allowed", field="extra_directives")
    return require_contained(text, field="extra_directives")
