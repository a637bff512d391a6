"""Where things lie: paths of the module on the node."""

from __future__ import annotations

from typing import Final

from agent.contract.actions import ConfigTree
from shared.specs.site import SITE_LOGS_DIR as SITE_LOGS_DIR  # noqa: PLC0414 - templates name it by this module
from shared.specs.site import SiteSpec, site_file_stem, site_log_name

NGINX_DIR: Final = "/etc/nginx"
MAIN_FILE: Final = "/etc/nginx/nginx.conf"
OUR_DIR: Final = "/etc/nginx/wcp360"
SITES_DIR: Final = "/etc/nginx/wcp360/sites"
PAGES_DIR: Final = "/etc/nginx/wcp360/pages"
LISTEN_FILE: Final = "/etc/nginx/wcp360/listen.conf"
FASTCGI_FILE: Final = "/etc/nginx/wcp360/fastcgi.conf"
UNIT: Final = "nginx.service"
UNIT_DROP_IN_DIR: Final = "/etc/systemd/system/nginx.service.d"
UNIT_DROP_IN: Final = "/etc/systemd/system/nginx.service.d/wcp360.conf"
LOG_ROTATION_FILE: Final = "/etc/logrotate.d/wcp360-sites"
LOGS_DIR: Final = "/var/log/wcp360"
ACCOUNTS_DIR: Final = "/srv/accounts"
RUN_DIR: Final = "/run/wcp360"
PROBE_SOCKET: Final = "/run/wcp360/probe.sock"
"""nginx answers the executor here: it has no network of its own."""
PROBE_PATH: Final = "/.wcp360-probe"
PHP_PROBE_PATH: Final = "/.wcp360-probe-php"
PHP_PING_PATH: Final = "/.wcp360-ping"
"""ping.path of every PHP pool; a dot file, so the web never reaches it."""
WEB_SERVER_GROUP: Final = "www-data"
IPV6_SIGN: Final = "/proc/sys/net/ipv6"
"""Exists unless the kernel was started without IPv6. Source: Documentation/networking/ipv6.rst."""

SITES_TREE: Final = ConfigTree(
    name="nginx",
    live_dir=SITES_DIR,
    validator=("/usr/sbin/nginx", "-t", "-q", "-c", "{stage}"),
    main_file=MAIN_FILE,
    reload_unit=UNIT,
)
MAIN_TREE: Final = ConfigTree(
    name="nginx_main",
    live_dir=NGINX_DIR,
    validator=("/usr/sbin/nginx", "-t", "-q", "-c", "{file}"),
    reload_unit=UNIT,
)
"""nginx.conf itself. It names every file by its absolute path, so it can be judged from anywhere."""


def site_file(domain: str) -> str:
    return f"{SITES_DIR}/{site_file_stem(domain)}.conf"


def home_dir(spec: SiteSpec) -> str:
    return f"{ACCOUNTS_DIR}/{spec.account}"


def site_dir(spec: SiteSpec) -> str:
    return f"{home_dir(spec)}/sites/{spec.domain}"


def document_root(spec: SiteSpec) -> str:
    return f"{site_dir(spec)}/{spec.document_root}"


def site_folders(spec: SiteSpec) -> tuple[str, ...]:
    """The site's folder and each one on the way to its document root, outermost first."""
    folders = [site_dir(spec)]
    for part in spec.document_root.split("/"):
        folders.append(f"{folders[-1]}/{part}")
    return tuple(folders)


def log_dir(spec: SiteSpec) -> str:
    return f"{SITE_LOGS_DIR}/{spec.account}"


def access_log(spec: SiteSpec) -> str:
    return f"{log_dir(spec)}/{site_log_name(spec.domain, 'access')}"


def error_log(spec: SiteSpec) -> str:
    return f"{log_dir(spec)}/{site_log_name(spec.domain, 'error')}"
