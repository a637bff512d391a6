"""Where things lie: paths, units and packages of the module on the node."""

from __future__ import annotations

from typing import Final

from agent.contract.actions import ConfigTree

CONFIG_ROOT: Final = "/etc/wcp360"
CONFIG_DIR: Final = "/etc/wcp360/php"
SLEEP_PROGRAM: Final = "/etc/wcp360/php/sleep.py"
UNIT_DIR: Final = "/etc/systemd/system"
SOCKETS_ROOT: Final = "/run/wcp-php"
TARGET: Final = "wcp-php.target"
"""Every socket belongs to it: the whole module is switched by one unit."""
SLEEP_TIMER: Final = "wcp-php-sleep.timer"
SLEEP_SERVICE: Final = "wcp-php-sleep.service"
ACCOUNTS_DIR: Final = "/srv/accounts"
PING_PATH: Final = "/.wcp360-ping"
"""The web module's probe asks for it; a dot file, so visitors cannot."""

PROGRAM_STARTERS: Final = (
    "exec",
    "passthru",
    "popen",
    "proc_open",
    "shell_exec",
    "system",
    "pcntl_exec",
    "pcntl_fork",
    "pcntl_rfork",
    "pcntl_forkx",
    # These start sendmail or rsh, with arguments or an environment (LD_PRELOAD) that a script chooses.
    "mail",
    "mb_send_mail",
    "imap_open",
    "imap_mail",
    "putenv",
)
"""Functions of PHP that start a program, or that choose what a program which PHP starts by itself will do.

Source: https://www.php.net/manual/en/refs.fileprocess.process.php, and what is published about getting around them.
"""

PROGRAMS: Final = ("fpm", "cli")
EXTENSIONS: Final = ("bcmath", "curl", "gd", "intl", "mbstring", "mysql", "opcache", "sqlite3", "xml", "zip")
"""What sites expect. Not every version has each as a package (opcache is part of PHP from 8.5 on)."""

KNOWN_VERSIONS: Final = tuple(f"{major}.{minor}" for major in range(5, 10) for minor in range(10))
"""Every name that a PhpPoolSpec may carry."""


def version_number(version: str) -> tuple[int, int]:
    major, _, minor = version.partition(".")
    return int(major), int(minor)


def program_packages(version: str) -> tuple[str, ...]:
    return tuple(f"php{version}-{part}" for part in PROGRAMS)


def extension_packages(version: str) -> tuple[str, ...]:
    return tuple(f"php{version}-{part}" for part in EXTENSIONS)


def removable_packages(version: str) -> tuple[str, ...]:
    """Ours, and what all packages of the version stand on: removing that one removes them all."""
    return (*program_packages(version), *extension_packages(version), f"php{version}-common")


def debian_unit(version: str) -> str:
    """Debian's own master for all pools; never used here."""
    return f"php{version}-fpm.service"


def version_dir(version: str) -> str:
    return f"{CONFIG_DIR}/{version}"


def socket_template(version: str) -> str:
    return f"{UNIT_DIR}/wcp-php{version}@.socket"


def service_template(version: str) -> str:
    return f"{UNIT_DIR}/wcp-php{version}@.service"


def pool_file(version: str, uid: int) -> str:
    return f"{version_dir(version)}/{uid}.conf"


def settings_dir(version: str, uid: int) -> str:
    """Beside the pool's own file: PHP reads every .ini in it, and nobody else's."""
    return f"{version_dir(version)}/{uid}.d"


def settings_file(version: str, uid: int) -> str:
    return f"{settings_dir(version, uid)}/sites.ini"


def fence_dir(version: str, uid: int) -> str:
    """Of what one account's master has besides the template."""
    return f"{UNIT_DIR}/{pool_service_unit(version, uid)}.d"


def fence_file(version: str, uid: int) -> str:
    return f"{fence_dir(version, uid)}/wcp360-strict.conf"


def pool_socket_unit(version: str, uid: int) -> str:
    return f"wcp-php{version}@{uid}.socket"


def pool_service_unit(version: str, uid: int) -> str:
    return f"wcp-php{version}@{uid}.service"


def config_tree(version: str) -> ConfigTree:
    """Each pool's file stands alone: it is the whole configuration of its master."""
    return ConfigTree(
        name=tree_name(version),
        live_dir=version_dir(version),
        validator=(f"/usr/sbin/php-fpm{version}", "-t", "-y", "{file}"),
    )


def tree_name(version: str) -> str:
    return f"php{version}"
