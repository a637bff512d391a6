"""What planning nginx and its sites needs to know of the host."""

from __future__ import annotations

from typing import Final

import msgspec

from agent.contract.compare import read_paths
from agent.contract.facts import PathFact, Probe, UnitFact
from agent.modules.web import layout
from shared.specs.site import SiteSpec

PACKAGE: Final = "nginx"
ROTATION_PACKAGE: Final = "logrotate"
"""Wanted where apt offers it; it may serve others, so it stays when the module goes."""
OWN_PACKAGES: Final = ("nginx", "nginx-common")
"""What Remove takes away."""
HOST_FOLDERS: Final = (
    layout.RUN_DIR,
    layout.NGINX_DIR,
    layout.OUR_DIR,
    layout.SITES_DIR,
    layout.PAGES_DIR,
    layout.UNIT_DROP_IN_DIR,
    layout.LOGS_DIR,
    layout.SITE_LOGS_DIR,
)
PAGES: Final = ("welcome.html", "suspended.html", "unknown_host.html")
HOST_FILES: Final = (
    layout.MAIN_FILE,
    layout.LISTEN_FILE,
    layout.FASTCGI_FILE,
    layout.UNIT_DROP_IN,
    layout.LOG_ROTATION_FILE,
    *(f"{layout.PAGES_DIR}/{page}" for page in PAGES),
)
FOREIGN_SITES_DIR: Final = "/etc/nginx/sites-enabled"


class WebHostFacts(msgspec.Struct, frozen=True, kw_only=True):
    """nginx as the host has it."""

    installed: tuple[str, ...]
    """Those of OWN_PACKAGES and ROTATION_PACKAGE that are installed."""
    is_rotation_offered: bool
    """apt could install ROTATION_PACKAGE."""
    unit: UnitFact
    paths: dict[str, PathFact | None]
    """HOST_FOLDERS and HOST_FILES."""
    sites: tuple[str, ...]
    """File names of our sites."""
    foreign_sites: tuple[str, ...]
    """Names in Debian's sites-enabled, which our main file does not read."""
    has_ipv6: bool


class SiteFacts(msgspec.Struct, frozen=True, kw_only=True):
    """One site as the host has it."""

    is_module_enabled: bool
    """Our main file is there and nginx starts with the host."""
    config: PathFact | None
    config_text: str | None
    paths: dict[str, PathFact | None]
    """The site's folders, its log folder and its log files."""
    is_untouched: bool
    """The site's folder holds nothing but its own, empty, document root."""


async def read_web_host(probe: Probe) -> WebHostFacts:
    installed = await probe.packages((*OWN_PACKAGES, ROTATION_PACKAGE))
    has_rotation = ROTATION_PACKAGE in installed
    return WebHostFacts(
        installed=tuple(sorted(installed)),
        is_rotation_offered=has_rotation or ROTATION_PACKAGE in await probe.available_packages(ROTATION_PACKAGE),
        unit=await probe.unit(layout.UNIT),
        paths=await read_paths(probe, (*HOST_FOLDERS, *HOST_FILES)),
        sites=tuple(name for name in await probe.list_directory(layout.SITES_DIR) or () if name.endswith(".conf")),
        foreign_sites=await probe.list_directory(FOREIGN_SITES_DIR) or (),
        has_ipv6=await probe.path(layout.IPV6_SIGN) is not None,
    )


async def read_site(spec: SiteSpec, probe: Probe) -> SiteFacts:
    path = layout.site_file(spec.domain)
    unit = await probe.unit(layout.UNIT)
    is_configured = await probe.path(layout.LISTEN_FILE) is not None
    return SiteFacts(
        is_module_enabled=is_configured and unit.is_enabled,
        config=await probe.path(path),
        config_text=await probe.read_text(path),
        paths=await read_paths(probe, (*layout.site_folders(spec), layout.log_dir(spec), *_log_files(spec))),
        is_untouched=await _is_untouched(spec, probe),
    )


def _log_files(spec: SiteSpec) -> tuple[str, str]:
    return layout.access_log(spec), layout.error_log(spec)


async def _is_untouched(spec: SiteSpec, probe: Probe) -> bool:
    folders = layout.site_folders(spec)
    for folder, child in zip(folders, (*folders[1:], None), strict=True):
        allowed = () if child is None else (child.rpartition("/")[2],)
        names = await probe.list_directory(folder)
        if names is None or not set(names) <= set(allowed):
            return False
        if not names:
            return True
    return True
