"""From typed values to the text of configuration files. Pure."""

from __future__ import annotations

from typing import Final

import jinja2

from agent.modules.php import layout
from shared.errors import PlanError
from shared.specs.account import MIB
from shared.specs.php_pool import PhpPoolSpec, parse_php_version
from shared.specs.php_settings import DIRECTIVES, PhpSettings

_UNQUOTABLE: Final = frozenset("\"\\$'")
"""PHP's ini reader expands $ and treats backslashes by rules of its own. Source: Zend/zend_ini_scanner.l."""


def quote_ini(value: str) -> str:
    """Return the value as a quoted value of php-fpm's configuration.

    Raises:
        PlanError: It cannot be written without being read as something else.
    """
    if any(character in _UNQUOTABLE or ord(character) < 32 or ord(character) == 127 for character in value):
        raise PlanError(f"{value[:80]!r} cannot be written into a PHP configuration")
    return f'"{value}"'


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("agent.modules.php"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML is made here; values of a spec go through the filter `quoted`
    )
    environment.filters["quoted"] = quote_ini
    environment.globals["layout"] = layout
    return environment


_TEMPLATES: Final = _environment()


def render_pool(spec: PhpPoolSpec) -> str:
    """The configuration of one master with its one pool."""
    return _TEMPLATES.get_template("pool.conf.j2").render(
        spec=spec,
        home=f"{layout.ACCOUNTS_DIR}/{spec.account}",
        memory_limit_bytes=spec.memory_limit_bytes,
        upload_max_bytes=spec.upload_max_bytes,
        # A form has more in it than its file.
        post_max_bytes=spec.upload_max_bytes + MIB,
        forbidden=",".join(("dl", *layout.PROGRAM_STARTERS) if spec.is_strict is True else ("dl",)),
    )


def render_settings(spec: PhpPoolSpec) -> str:
    """What sites have chosen: a section for each site's folder, which PHP applies to the requests in it only.

    Neither a .user.ini nor ini_set changes what stands there. Source: https://www.php.net/manual/en/ini.sections.php.
    """
    sites = [
        (f"{layout.ACCOUNTS_DIR}/{spec.account}/sites/{site.domain}", _directives_of(site.settings))
        for site in spec.chosen
    ]
    return _TEMPLATES.get_template("sites.ini.j2").render(account=spec.account, sites=sites)


def _directives_of(settings: PhpSettings) -> list[tuple[str, str]]:
    chosen = ((directive, getattr(settings, name)) for name, directive in DIRECTIVES.items())
    return [(directive, _ini_value(value)) for directive, value in chosen if value is not None]


def _ini_value(value: int | str) -> str:
    return quote_ini(value) if isinstance(value, str) else str(int(value))


def render_unit(template: str, version: str) -> str:
    """A unit template of one PHP version.

    Raises:
        InvalidInputError: It is no version.
    """
    return _TEMPLATES.get_template(template).render(version=parse_php_version(version))


def render_static(template: str) -> str:
    """A file that has no values of its own."""
    return _TEMPLATES.get_template(template).render()
