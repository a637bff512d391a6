"""From typed values to the text of configuration files. Pure.

Nothing reaches a file unquoted that a spec has not checked; what nginx cannot hold in quotes is refused, not mangled.
"""

from __future__ import annotations

from typing import Final

import jinja2

from agent.contract.actions import content_hash
from agent.modules.web import layout
from shared.errors import InvalidInputError, PlanError
from shared.specs.php_pool import PHP_SOCKET_DIR, parse_php_version, php_socket_path
from shared.specs.site import SiteSpec

ACCOUNT_MARK: Final = "# account: "
"""First words of the line that says whose site a file is."""


def quote_nginx(value: str) -> str:
    """Return the value as one quoted word of nginx's configuration.

    nginx has no way to write a literal `$` where it expands variables, and a line break never belongs into a value.

    Raises:
        PlanError: It cannot be written.
    """
    if "$" in value or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise PlanError(f"{value[:80]!r} cannot be written into an nginx configuration")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.modules.web"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML is made here; nginx values go through the filter `quoted`
    )
    environment.filters["quoted"] = quote_nginx
    environment.globals["layout"] = layout
    return environment


_TEMPLATES: Final = _environment()


def render_main(*, has_ipv6: bool) -> str:
    """/etc/nginx/nginx.conf: ours as a whole, so that a staged copy can be judged."""
    return _TEMPLATES.get_template("nginx.conf.j2").render(has_ipv6=has_ipv6)


def render_listen(*, has_ipv6: bool) -> str:
    """The addresses of every site, in one file, so that a new listener touches no site."""
    return _TEMPLATES.get_template("listen.conf.j2").render(has_ipv6=has_ipv6)


def render_static(name: str) -> str:
    """A file that has no values of its own."""
    return _TEMPLATES.get_template(name).render()


def render_site(spec: SiteSpec, *, is_suspended: bool) -> str:
    """The site's virtual server. Its probe answers with a digest of this very text.

    Raises:
        PlanError: A value cannot be written.
    """
    values = {
        "account": spec.account,
        "domain": spec.domain,
        "names": (spec.domain, *spec.aliases),
        "home": layout.home_dir(spec),
        "root": layout.document_root(spec),
        "access_log": layout.access_log(spec),
        "error_log": layout.error_log(spec),
        "php_socket": _require_own_socket(spec),
        "upload_max_bytes": spec.upload_max_bytes,
        "extra_directives": spec.extra_directives,
    }
    template = _TEMPLATES.get_template("suspended_site.conf.j2" if is_suspended else "site.conf.j2")
    digest = content_hash(template.render(values, probe_answer=""))[:16]
    return template.render(values, probe_answer=_probe_answer(spec, digest, is_suspended=is_suspended))


def probe_answer(spec: SiteSpec, *, is_suspended: bool) -> str:
    """What the site's probe says while exactly this configuration is live."""
    text = render_site(spec, is_suspended=is_suspended)
    marker = "# probe: "
    line = next(line for line in text.splitlines() if line.startswith(marker))
    return line.removeprefix(marker)


def parse_account(text: str) -> str | None:
    """Whose site a file of ours is; None when it does not say."""
    for line in text.splitlines()[:8]:
        if line.startswith(ACCOUNT_MARK):
            return line.removeprefix(ACCOUNT_MARK)
    return None


def _probe_answer(spec: SiteSpec, digest: str, *, is_suspended: bool) -> str:
    return f"{'suspended' if is_suspended else 'site'} {spec.domain} {digest}"


def _require_own_socket(spec: SiteSpec) -> str | None:
    """The spec's PHP socket, if it is the account's own.

    Raises:
        PlanError: It is another account's, or no PHP socket at all.
    """
    path = spec.php_socket_path
    if path is None:
        return None
    version = path.removeprefix(f"{PHP_SOCKET_DIR}/").partition("/")[0]
    try:
        parse_php_version(version)
    except InvalidInputError:
        version = ""
    if not version or path != php_socket_path(version, spec.uid):
        raise PlanError(f"{path[:80]!r} is not a PHP socket of account {spec.account}")
    return path
