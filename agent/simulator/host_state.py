"""What a simulated host consists of, and what Debian's packages bring to it."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from agent.contract.facts import HomeFact, UserFact
from shared.specs.account import ResourceLimits


class Kind(enum.Enum):
    """What lies at a path, in the words of PathFact."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"


class MemoryPath(msgspec.Struct, frozen=True, kw_only=True):
    """A file (with content), a directory, or a symbolic link (its target is the content)."""

    kind: Kind
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755
    content: str = ""


class MemoryUnit(msgspec.Struct, frozen=True, kw_only=True):
    """A unit that runs, is enabled, or has failed; one that is none of these has no entry."""

    is_running: bool = False
    is_enabled: bool = False
    has_failed: bool = False


class HostState(msgspec.Struct, kw_only=True):
    """Everything an action can change. Values are immutable, so a copy of the tables is a snapshot; `==` compares."""

    users: dict[str, UserFact] = msgspec.field(default_factory=dict)
    paths: dict[str, MemoryPath] = msgspec.field(default_factory=dict)
    units: dict[str, MemoryUnit] = msgspec.field(default_factory=dict)
    packages: dict[str, str] = msgspec.field(default_factory=dict)
    slices: dict[str, ResourceLimits] = msgspec.field(default_factory=dict)
    """Key: the uid in digits."""
    homes: dict[str, HomeFact] = msgspec.field(default_factory=dict)
    processes: dict[str, int] = msgspec.field(default_factory=dict)
    """uid in digits to how many."""

    def copy(self) -> HostState:
        return HostState(**{name: dict(getattr(self, name)) for name in self.__struct_fields__})


class MemoryPackage(msgspec.Struct, frozen=True, kw_only=True):
    """What a package brings. Its services are enabled and not started, as on a node."""

    version: str
    directories: tuple[str, ...] = ()
    files: dict[str, str] = msgspec.field(default_factory=dict)
    units: tuple[str, ...] = ()

    @property
    def paths(self) -> dict[str, MemoryPath]:
        """Directories before what lies in them."""
        folders = {path: MemoryPath(kind=Kind.DIRECTORY) for path in self.directories}
        contents = {
            path: MemoryPath(kind=Kind.FILE, mode=0o644, content=content) for path, content in self.files.items()
        }
        return {**folders, **contents}


SYSTEM_NAMES: Final = frozenset({"root", "www-data", "nobody", "adm", "wcp-agent"})
"""Users and groups that a Debian server with our agent has."""

BASE_DIRECTORIES: Final = (
    "/",
    "/etc",
    "/etc/systemd",
    "/etc/systemd/system",
    "/etc/wcp360",
    "/etc/tmpfiles.d",
    "/etc/logrotate.d",
    "/etc/cron.d",
    "/run",
    "/run/wcp360",
    "/srv",
    "/srv/accounts",
    "/usr",
    "/usr/lib",
    "/usr/local",
    "/usr/local/lib",
    "/usr/sbin",
    "/var",
    "/var/lib",
    "/var/lib/wcp360-executor",
    "/var/log",
    "/var/cache",
    "/opt",
    "/opt/wcp360",
    "/root",
    "/home",
)

NGINX_CONF: Final = """\
user www-data;
include /etc/nginx/modules-enabled/*.conf;
events { worker_connections 768; }
http {
    include /etc/nginx/mime.types;
    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
"""


def nginx_package(version: str = "1.22.1-9+deb12u11") -> MemoryPackage:
    folders = ("/etc/nginx", *(f"/etc/nginx/{name}" for name in ("conf.d", "modules-enabled", "sites-enabled")))
    return MemoryPackage(
        version=version,
        directories=(*folders, "/var/log/nginx", "/var/www"),
        files={"/etc/nginx/nginx.conf": NGINX_CONF, "/usr/sbin/nginx": ""},
        units=("nginx.service",),
    )


def php_packages(release: str = "8.2", version: str = "8.2.36-1~deb12u1") -> dict[str, MemoryPackage]:
    """A PHP release: fpm with its service, cli, and the usual extensions."""
    fpm = MemoryPackage(
        version=version,
        directories=("/etc/php", f"/etc/php/{release}", f"/etc/php/{release}/fpm", f"/etc/php/{release}/fpm/pool.d"),
        files={
            f"/etc/php/{release}/fpm/php.ini": "[PHP]\n",
            f"/etc/php/{release}/fpm/pool.d/www.conf": "[www]\nuser = www-data\n",
            f"/usr/sbin/php-fpm{release}": "",
        },
        units=(f"php{release}-fpm.service",),
    )
    extensions = ("cli", "common", "opcache", "mysql", "curl", "gd", "mbstring", "xml", "zip", "intl", "bcmath")
    others = {f"php{release}-{name}": MemoryPackage(version=version) for name in extensions}
    return {f"php{release}-fpm": fpm, **others}


def ssh_packages(version: str = "1:9.2p1-2+deb12u7") -> dict[str, MemoryPackage]:
    """sshd, and what puts logins into slices."""
    server = MemoryPackage(
        version=version,
        directories=("/etc/ssh", "/etc/ssh/sshd_config.d"),
        files={"/etc/ssh/sshd_config": "Include /etc/ssh/sshd_config.d/*.conf\n", "/usr/sbin/sshd": ""},
        units=("ssh.service",),
    )
    return {"openssh-server": server, "libpam-systemd": MemoryPackage(version="252.39-1~deb12u1")}


DEBIAN_12: Final[Mapping[str, MemoryPackage]] = {"nginx": nginx_package(), **php_packages(), **ssh_packages()}
DEBIAN_13: Final[Mapping[str, MemoryPackage]] = {
    "nginx": nginx_package("1.26.3-3+deb13u11"),
    **php_packages("8.4", "8.4.28-1~deb13u1"),
    **ssh_packages("1:10.0p1-7+deb13u1"),
}


def fresh_state(directories: Iterable[str] = ()) -> HostState:
    """A host as our installer leaves it, with further directories."""
    folder = MemoryPath(kind=Kind.DIRECTORY)
    return HostState(paths=dict.fromkeys((*BASE_DIRECTORIES, *directories), folder))
