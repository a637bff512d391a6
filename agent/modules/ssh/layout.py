"""Where things lie: paths of the module on the node."""

from __future__ import annotations

from typing import Final

from agent.contract.actions import ConfigTree

SSHD_DIR: Final = "/etc/ssh"
DROP_IN_DIR: Final = "/etc/ssh/sshd_config.d"
DROP_IN: Final = "/etc/ssh/sshd_config.d/00-wcp360.conf"
"""First by name: of each keyword sshd takes the first value that it reads. Source: sshd_config(5)."""
CONFIG_ROOT: Final = "/etc/wcp360"
KEYS_DIR: Final = "/etc/wcp360/ssh"
"""Not in the homes: there a tenant could put links in the way, or keys that nobody knows of."""
PRIVILEGE_DIR: Final = "/run/sshd"
"""sshd -t refuses to judge without it; ssh.service makes it when it starts."""
UNIT: Final = "ssh.service"
PACKAGES: Final = ("openssh-server", "libpam-systemd")
"""The second puts a login into its user's slice: without it the account's limits would not hold."""

TREE: Final = ConfigTree(
    name="sshd",
    live_dir=DROP_IN_DIR,
    validator=("/usr/sbin/sshd", "-t", "-f", "{stage}"),
    main_file="/etc/ssh/sshd_config",
    reload_unit=UNIT,
)


def keys_file(account: str) -> str:
    return f"{KEYS_DIR}/{account}"
