"""From typed values to the text of sshd's files. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import jinja2

from agent.modules.ssh import layout
from shared.specs.account import TENANTS_GROUP
from shared.specs.ssh_access import SshAccessSpec, SshKey

_TEMPLATES: Final = jinja2.Environment(
    loader=jinja2.PackageLoader("agent.modules.ssh"),
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    autoescape=False,  # noqa: S701 - no HTML is made here; the only values are our own constants
)


def render_drop_in(*, is_open: bool) -> str:
    """Sshd's rules for tenants; not open: no key of theirs is looked at."""
    return _TEMPLATES.get_template("sshd.conf.j2").render(layout=layout, group=TENANTS_GROUP, is_open=is_open)


def render_keys(spec: SshAccessSpec) -> str:
    """An authorized_keys file. Each value was checked by its spec, so none can hold a quote or a line break."""
    return "".join(f"{_render_line(key)}\n" for key in spec.keys)


def _render_line(key: SshKey) -> str:
    """Source: sshd(8), AUTHORIZED_KEYS FILE FORMAT; `Z` in expiry-time is UTC (OpenSSH 9.1 and later)."""
    options = ["restrict", "pty"]
    if key.networks:
        options.append(f'from="{",".join(key.networks)}"')
    if key.expires_at is not None:
        options.append(f'expiry-time="{datetime.fromtimestamp(key.expires_at, tz=UTC):%Y%m%d%H%M%S}Z"')
    return f"{','.join(options)} {key.key_type} {key.blob}"
