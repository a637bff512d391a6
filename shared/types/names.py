"""Names that end up in files, commands and URLs: domains, unix users, resource keys."""

from __future__ import annotations

import re
from typing import Final, NewType

from shared.errors import InvalidInputError

DomainName = NewType("DomainName", str)
"""A host name in its ASCII (A-label) form, lower case, no trailing dot: 4 to 253 characters, at least 2 labels."""

UnixName = NewType("UnixName", str)
"""The unix user of an account: 2 to 24 of a-z, 0-9 and single inner hyphens, starting with a letter."""

ResourceKey = NewType("ResourceKey", str)
"""What one spec of a manifest is called: `kind/name`, for example `site/example.com`."""

MAX_DOMAIN_LENGTH: Final = 253
"""Longest textual host name. Source: RFC 1035 section 2.3.4 (255 octets on the wire)."""

MAX_LABEL_LENGTH: Final = 63
"""Source: RFC 1035 section 2.3.4."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_UNIX_NAME = re.compile(r"[a-z](?:[a-z0-9]|-(?=[a-z0-9])){1,23}")
_MODULE_NAME = re.compile(r"[a-z][a-z0-9]{1,30}")

# Names that Debian's base-passwd, its packages or this product use, and words that would confuse a person reading a
# process list. Source: /usr/share/base-passwd/{passwd,group}.master and the sysusers files of the packages we install.
RESERVED_UNIX_NAMES: Final = frozenset(
    """
    root daemon bin sys sync games man lp mail news uucp proxy www-data backup list irc gnats nobody nogroup adm tty
    disk kmem dialout fax voice cdrom floppy tape sudo audio dip operator src shadow utmp video sasl plugdev staff
    users systemd-network systemd-resolve systemd-timesync systemd-journal systemd-coredump messagebus polkitd sshd
    ntp input sgx kvm render crontab netdev ssl-cert nginx apache php mysql mariadb postgres postgresql redis
    memcache postfix postdrop dovecot dovenull vmail opendkim rspamd clamav bind named pdns unbound debian debian-
    exim ftp proftpd vsftpd restic git ssh admin administrator host localhost wcp wcp360 wcp-agent wcp-executor test
    guest default public private tenant account client reseller support postmaster webmaster hostmaster abuse
    security wcp-tenants
    """.split()  # noqa: SIM905 - a list of words reads better as words
)


def parse_domain_name(raw: str) -> DomainName:
    """Return the canonical ASCII form of a host name that we may serve.

    Accepts upper case and one trailing dot. A name with non-ASCII characters must be turned into A-labels first (the
    controller does that at its edge).

    Raises:
        InvalidInputError: It is no host name by RFC 1123 section 2.1, an IP address, or a single label.
    """
    name = raw.lower().removesuffix(".")
    if not name.isascii():
        raise InvalidInputError(f"{raw[:80]!r} must be written in its ASCII form (xn--...)")
    if len(name) > MAX_DOMAIN_LENGTH:
        raise InvalidInputError(f"a domain name has at most {MAX_DOMAIN_LENGTH} characters; this one has {len(name)}")
    labels = name.split(".")
    if len(labels) < 2:
        raise InvalidInputError(f"{raw[:80]!r} is not a full domain name such as example.com")
    for label in labels:
        _require_label(label, raw)
    if labels[-1].isdigit():
        raise InvalidInputError(f"{raw[:80]!r} looks like an IP address; a domain name is needed")
    return DomainName(name)


def _require_label(label: str, raw: str) -> None:
    if not label:
        raise InvalidInputError(f"{raw[:80]!r} has an empty part between two dots")
    if len(label) > MAX_LABEL_LENGTH:
        raise InvalidInputError(f"each part of a domain name has at most {MAX_LABEL_LENGTH} characters")
    if not _LABEL.fullmatch(label):
        raise InvalidInputError(
            f"{raw[:80]!r} is not a domain name: use letters, digits and inner hyphens between the dots"
        )


def parse_unix_name(raw: str) -> UnixName:
    """Return the name if an account may have it as its unix user.

    Raises:
        InvalidInputError: It breaks the rules of `UnixName` or is reserved by the system.
    """
    if not _UNIX_NAME.fullmatch(raw):
        raise InvalidInputError(
            f"{raw[:40]!r} cannot be an account name: 2 to 24 lower-case letters, digits and inner hyphens, "
            "starting with a letter"
        )
    if raw in RESERVED_UNIX_NAMES or raw.startswith(("systemd-", "wcp-", "_")):
        raise InvalidInputError(f"the name {raw!r} is reserved by the system", hint="Choose another account name.")
    return UnixName(raw)


def parse_module_name(raw: str) -> str:
    """Return the name if a module can have it.

    Raises:
        InvalidInputError: It is not 2 to 31 lower-case letters and digits.
    """
    if not _MODULE_NAME.fullmatch(raw):
        raise InvalidInputError(f"{raw[:40]!r} is not a module name")
    return raw


def parse_resource_key(raw: str) -> ResourceKey:
    """Return the key if it has the form `kind/name`, printable ASCII, at most 300 characters.

    Raises:
        InvalidInputError: It has not.
    """
    kind, slash, name = raw.partition("/")
    if not slash or not kind or not name or len(raw) > 300 or not raw.isascii() or not raw.isprintable() or " " in raw:
        raise InvalidInputError(f"{raw[:80]!r} is not a resource key such as site/example.com")
    return ResourceKey(raw)
