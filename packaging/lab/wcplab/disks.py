"""A node's disks: its root over the shared image, and the volume that accounts live on."""

from __future__ import annotations

import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path

from wcplab import mounts
from wcplab.errors import CannotBootError, LabError
from wcplab.process import run

ACCOUNTS_BYTES = 2 * 1024**3
"""Size of the accounts volume. Sparse: it takes what is written to it."""
ACCOUNTS_MOUNT_POINT = "/srv/accounts"
TOOL_TIMEOUT_SECONDS = 60.0


@dataclass(frozen=True)
class NodeDisk:
    """The directory that holds one node's disks; survives stop and kill, not reset."""

    directory: Path

    @property
    def root(self) -> Path:
        """The node's whole file system, as mounted on this machine."""
        return self.directory / "root"

    @property
    def accounts(self) -> Path:
        """The accounts volume, as mounted on this machine."""
        return self.directory / "accounts"

    @property
    def accounts_image(self) -> Path:
        """The file that holds the accounts volume."""
        return self.directory / "accounts.img"

    @property
    def console_log(self) -> Path:
        """What the node printed on its console since its last boot."""
        return self.directory / "console.log"

    @property
    def is_created(self) -> bool:
        """Whether the disk was made to its end."""
        return (self.directory / "ready").exists()

    def mount(self, image_root: Path, storage: str) -> None:
        """Mount the root over its image, and the accounts volume when it has one. Idempotent.

        Raises:
            CannotBootError: the kernel refuses overlay or btrfs here.
        """
        upper, work = self.directory / "upper", self.directory / "work"
        for directory in (upper, work, self.root, self.accounts):
            directory.mkdir(parents=True, exist_ok=True)
        self._mount_root(image_root, upper, work)
        if storage == "btrfs" and mounts.find_mount(self.accounts) is None:
            self._mount_accounts()

    def _mount_root(self, image_root: Path, upper: Path, work: Path) -> None:
        mounted = mounts.find_mount(self.root)
        if mounted and mounted.overlay_layers == (image_root,):
            return
        mounts.unmount_all(self.root)
        # "volatile" skips syncing a disk that need not outlive the machine. The kernel marks such a disk as not safe to
        # mount again after a crash of the MACHINE; ours are only ever cut off by killing processes, so the mark goes.
        # Source: Documentation/filesystems/overlayfs.rst, "Volatile mount".
        shutil.rmtree(work / "work/incompat", ignore_errors=True)
        options = [f"lowerdir={image_root}", f"upperdir={upper}", f"workdir={work}", "volatile"]
        try:
            mounts.mount("overlay", "wcp-lab", self.root, options)
        except LabError as error:
            hint = "overlay needs root and ext4, XFS or btrfs below: point WCP_LAB_STATE at such a disk"
            raise CannotBootError("no_overlay", f"cannot mount a node's disk: {error}", hint=hint) from error

    def _mount_accounts(self) -> None:
        is_new = not self.accounts_image.exists()
        if is_new:
            with self.accounts_image.open("wb") as image:
                image.truncate(ACCOUNTS_BYTES)
            argv = ["mkfs.btrfs", "--quiet", "--force", str(self.accounts_image)]
            run(argv, timeout_seconds=TOOL_TIMEOUT_SECONDS).check()
        try:
            mounts.mount("btrfs", str(self.accounts_image), self.accounts, ["loop", "noatime"])
        except LabError as error:
            hint = "needs a kernel with btrfs and loop devices; `--storage plain` does without"
            raise CannotBootError("no_btrfs", f"cannot mount the accounts volume: {error}", hint=hint) from error
        if is_new:
            run(["btrfs", "quota", "enable", str(self.accounts)], timeout_seconds=TOOL_TIMEOUT_SECONDS).check()

    def personalise(self, hostname: str, address: str, hosts: str) -> None:
        """Give a new, mounted disk what makes it this node: names, address, machine id, SSH host key."""
        etc = self.root / "etc"
        replace_text(etc / "hostname", f"{hostname}\n")
        replace_text(etc / "hosts", hosts)
        replace_text(etc / "machine-id", f"{uuid.uuid4().hex}\n")
        (etc / "wcp-lab").mkdir(exist_ok=True)
        replace_text(etc / "wcp-lab/network.env", f"ADDRESS={address}/24\n")
        key = [
            "ssh-keygen",
            "-q",
            "-t",
            "ed25519",
            "-N",
            "",
            "-C",
            f"root@{hostname}",
            "-f",
            "/etc/ssh/ssh_host_ed25519_key",
        ]
        run(["chroot", str(self.root), *key], timeout_seconds=TOOL_TIMEOUT_SECONDS).check()
        (self.directory / "ready").touch()

    def unmount(self) -> None:
        """Unmount all of it; loop devices go with their mounts. Idempotent."""
        mounts.unmount_all(self.directory)

    def remove(self) -> None:
        """Unmount and delete it. Idempotent."""
        self.unmount()
        if self.directory.exists():
            shutil.rmtree(self.directory)


def replace_text(path: Path, text: str) -> None:
    """Write a new file in place of whatever is there; a symbolic link is replaced, never followed out of the node."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
