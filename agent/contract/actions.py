"""The vocabulary: everything that can be done to a host, as values.

An action says what must be true afterwards; applying it twice is applying it once. `agent.system` knows how to capture
what was there before (the undo record), how to apply, and how to undo. There is no action that runs an arbitrary
command.
"""

from __future__ import annotations

import hashlib
from typing import ClassVar

import msgspec

from shared.specs.account import ResourceLimits, StorageDriver


class Action(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, tag_field="action"):
    """Base of all actions."""

    IS_IRREVERSIBLE: ClassVar[bool] = False
    """True: nothing brings it back; such actions come last in a plan."""

    reason: str
    """Why it is planned, for people."""

    @property
    def target(self) -> str:
        """What it is about: a path, a unit, a user, a service."""
        raise NotImplementedError


class EnsureUser(Action, frozen=True, kw_only=True, tag="ensure_user"):
    """A unix user with a group of the same name and id, no password, the given shell."""

    name: str
    uid: int
    home: str
    shell: str = "/usr/sbin/nologin"
    groups: tuple[str, ...] = ()
    """Further groups that it is in; made where they are missing. Others that somebody put it into stay."""
    is_locked: bool = False
    """True: no login of any kind (password and SSH keys, crontab, su): the account is expired."""

    @property
    def target(self) -> str:
        return self.name


class RemoveUser(Action, frozen=True, kw_only=True, tag="remove_user"):
    """The user and its group are gone; files stay."""

    name: str

    @property
    def target(self) -> str:
        return self.name


class EnsureDirectory(Action, frozen=True, kw_only=True, tag="ensure_directory"):
    """A directory with this owner and mode; parents must exist. Its content is left alone."""

    path: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o755

    @property
    def target(self) -> str:
        return self.path


class RemoveTree(Action, frozen=True, kw_only=True, tag="remove_tree"):
    """A directory with all it holds is gone. Never follows a symbolic link."""

    IS_IRREVERSIBLE: ClassVar[bool] = True

    path: str

    @property
    def target(self) -> str:
        return self.path


class EnsureHome(Action, frozen=True, kw_only=True, tag="ensure_home"):
    """An account's home on a storage driver, with its size limit."""

    path: str
    driver: StorageDriver
    """DIRECTORY or BTRFS; the plan has resolved AUTO."""
    owner: str
    group: str
    mode: int
    quota_bytes: int | None

    @property
    def target(self) -> str:
        return self.path


class RemoveHome(Action, frozen=True, kw_only=True, tag="remove_home"):
    """The home with all it holds is gone, the btrfs subvolume and its qgroup included."""

    IS_IRREVERSIBLE: ClassVar[bool] = True

    path: str

    @property
    def target(self) -> str:
        return self.path


class WriteFile(Action, frozen=True, kw_only=True, tag="write_file"):
    """A file with exactly this content, owner and mode: temporary file, fsync, rename, fsync of the directory."""

    path: str
    content: str
    owner: str = "root"
    group: str = "root"
    mode: int = 0o644

    @property
    def target(self) -> str:
        return self.path


class RemoveFile(Action, frozen=True, kw_only=True, tag="remove_file"):
    """No such file (or symbolic link)."""

    path: str

    @property
    def target(self) -> str:
        return self.path


class PublishConfig(Action, frozen=True, kw_only=True, tag="publish_config"):
    """Files of a service's configuration change together: staged, judged by the service's validator, renamed, reloaded.

    Publications of several jobs to the same tree are tested and reloaded together; one that the validator refuses fails
    alone, with the validator's words.
    """

    tree: str
    """Name of a ConfigTree."""
    files: tuple[WriteFile, ...] = ()
    removals: tuple[str, ...] = ()

    @property
    def target(self) -> str:
        paths = [file.path for file in self.files] + list(self.removals)
        return paths[0] if len(paths) == 1 else f"{self.tree}: {len(paths)} files"


class InstallPackages(Action, frozen=True, kw_only=True, tag="install_packages"):
    """These Debian packages are installed, without starting their services. Undo removes those that were not there."""

    names: tuple[str, ...]

    @property
    def target(self) -> str:
        return " ".join(self.names)


class RemovePackages(Action, frozen=True, kw_only=True, tag="remove_packages"):
    """These Debian packages are not installed; their configuration is purged."""

    names: tuple[str, ...]

    @property
    def target(self) -> str:
        return " ".join(self.names)


class EnsureUnit(Action, frozen=True, kw_only=True, tag="ensure_unit"):
    """A systemd unit is running or not, enabled or not. None means "leave alone"."""

    unit: str
    is_running: bool | None = None
    is_enabled: bool | None = None

    @property
    def target(self) -> str:
        return self.unit


class ReloadUnit(Action, frozen=True, kw_only=True, tag="reload_unit"):
    """A running unit reads its configuration again; a stopped one is left alone. Undo reloads again."""

    unit: str

    @property
    def target(self) -> str:
        return self.unit


class ReloadSystemd(Action, frozen=True, kw_only=True, tag="reload_systemd"):
    """systemd reads its unit files again (daemon-reload)."""

    @property
    def target(self) -> str:
        return "systemd"


class SetSliceLimits(Action, frozen=True, kw_only=True, tag="set_slice_limits"):
    """user-UID.slice has these limits, now and after a reboot."""

    uid: int
    limits: ResourceLimits

    @property
    def target(self) -> str:
        return f"user-{self.uid}.slice"


class EndProcesses(Action, frozen=True, kw_only=True, tag="end_processes"):
    """No process of this user runs: TERM, then KILL after 5 s. Nothing to undo: services start again by themselves."""

    uid: int

    @property
    def target(self) -> str:
        return f"user-{self.uid}.slice"


AnyAction = (
    EnsureUser
    | RemoveUser
    | EnsureDirectory
    | RemoveTree
    | EnsureHome
    | RemoveHome
    | WriteFile
    | RemoveFile
    | PublishConfig
    | InstallPackages
    | RemovePackages
    | EnsureUnit
    | ReloadUnit
    | ReloadSystemd
    | SetSliceLimits
    | EndProcesses
)


class ConfigTree(msgspec.Struct, frozen=True, kw_only=True):
    """A folder of configuration that its service's own validator judges before anything goes live."""

    name: str
    live_dir: str
    """Absolute; every file of a PublishConfig lies directly in it."""
    validator: tuple[str, ...]
    """argv; `{stage}` stands for the staged main file, `{stage_dir}` for its folder, `{file}` for one staged file."""
    main_file: str | None = None
    """Copied into the stage with `live_dir` replaced by the staged folder; None when each file stands alone."""
    reload_unit: str | None = None
    """Reloaded once the files are live, if it runs."""


def content_hash(content: str) -> str:
    """SHA-256 in hex of a text file's bytes, as facts report it."""
    return hashlib.sha256(content.encode()).hexdigest()
