"""Building one node image into an empty directory: a bare Debian, and a folder of packages to install from."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from wcplab import apt_host, recipe
from wcplab.paths import RECIPE_DIRECTORY
from wcplab.process import run

BOOTSTRAP_TIMEOUT_SECONDS = 1200.0
DOWNLOAD_TIMEOUT_SECONDS = 1200.0
STEP_TIMEOUT_SECONDS = 120.0
REPO = Path("var/lib/wcp-lab/repo")
"""Where the packages are inside an image; apt reads them in place, nodes share them and nothing is copied."""
UPDATE_DONE = "usr/lib/systemd/systemd-update-done"
"""Source: systemd-update-done.service(8)."""

Progress = Callable[[str], None]


def build(suite: str, root: Path, progress: Progress) -> None:
    """Fill `root` with the image of a suite. Needs root and the network.

    Raises:
        LabError: a step failed; `root` is then of no use.
    """
    progress(f"image {suite}: base system")
    bootstrap(suite, root)
    download_packages(suite, root, progress)
    progress(f"image {suite}: index")
    index_packages(root)
    customise(root)
    refresh_apt(root)


def bootstrap(suite: str, root: Path) -> None:
    """Make the bare Debian; its apt keeps the lists and options it was made with, for the download."""
    sources = apt_host.source_lines(apt_host.read_sources(), host_codename=apt_host.read_codename(), suite=suite)
    packages = [name for group in recipe.read_packages("base", suite).values() for name in group]
    argv = ["mmdebstrap", "--mode=root", "--variant=apt", "--format=directory", "--quiet", "--skip=cleanup/apt"]
    argv += [f"--dpkgopt={RECIPE_DIRECTORY / 'node-files/etc/dpkg/dpkg.cfg.d/99wcp-lab'}"]
    argv += [f"--aptopt={option}" for option in ('Acquire::Languages "none"', *apt_host.read_options())]
    argv += [f"--include={','.join(packages)}", suite, str(root), *sources]
    hint = "see whether `apt-get update` works on this machine; trixie needs a current debian-archive-keyring"
    run(argv, timeout_seconds=BOOTSTRAP_TIMEOUT_SECONDS).check(hint=hint)


def download_packages(suite: str, root: Path, progress: Progress) -> None:
    """Fetch the packages nodes may be asked to install, with all they depend on, group by group.

    apt runs outside the image with the image as its directory, as mmdebstrap does, so this machine's own way to the
    packages (proxy, certificates) holds.
    """
    archives = root / "var/cache/apt/archives"
    for leftover in archives.glob("*.deb"):
        leftover.unlink()
    for group, packages in recipe.read_packages("offline", suite).items():
        progress(f"image {suite}: packages for {group}")
        download_group(root, packages)
    pool = root / REPO / "pool"
    pool.mkdir(parents=True)
    for package in archives.glob("*.deb"):
        package.rename(pool / package.name)


def download_group(root: Path, packages: Sequence[str]) -> None:
    """Fetch one group and its dependencies into the image's apt cache."""
    options = {
        "Dir": f"{root}/",
        "Dir::State::status": str(root / "var/lib/dpkg/status"),
        "Dir::Cache::archives": str(root / "var/cache/apt/archives/"),
        "APT::Keep-Downloaded-Packages": "true",
        # The sandbox user of a foreign root directory cannot reach it; mmdebstrap does the same.
        "APT::Sandbox::User": "root",
    }
    settings = [word for key, value in options.items() for word in ("--option", f"{key}={value}")]
    argv = ["apt-get", *settings, "install", "--yes", "--quiet", "--no-install-recommends", "--download-only"]
    run([*argv, *packages], timeout_seconds=DOWNLOAD_TIMEOUT_SECONDS).check(hint="is each package in this suite?")


def index_packages(root: Path) -> None:
    """Write the index that makes the folder a repository for apt."""
    repo = root / REPO
    argv = ["apt-ftparchive", "-o", f"Dir={repo}", "packages", "pool"]
    # apt-ftparchive names files as it was told to find them, so it must run in the folder itself.
    found = run(["env", f"--chdir={repo}", *argv], timeout_seconds=STEP_TIMEOUT_SECONDS).check()
    (repo / "Packages").write_bytes(found.stdout_bytes)
    (repo / "Packages.gz").write_bytes(gzip.compress(found.stdout_bytes, mtime=0))
    release = ["apt-ftparchive", "-o", "APT::FTPArchive::Release::Origin=WCP360 lab", "release", "."]
    found = run(["env", f"--chdir={repo}", *release], timeout_seconds=STEP_TIMEOUT_SECONDS).check()
    (repo / "Release").write_bytes(found.stdout_bytes)


def customise(root: Path) -> None:
    """Take off what is this machine's, and put on what makes a node."""
    for pattern in ("etc/apt/sources.list", "etc/apt/sources.list.d/*", "etc/apt/apt.conf.d/99mmdebstrap"):
        _remove(root, pattern)
    # Every node gets host keys and a machine id of its own, as every server has.
    for pattern in ("etc/ssh/ssh_host_*", "etc/hostname", "etc/resolv.conf", "etc/dpkg/dpkg.cfg.d/99mmdebstrap"):
        _remove(root, pattern)
    shutil.copytree(RECIPE_DIRECTORY / "node-files", root, dirs_exist_ok=True, symlinks=True)
    (root / "etc/machine-id").write_text("", encoding="ascii")
    (root / "etc/resolv.conf").write_text("# A lab node has no name server but its own.\n", encoding="ascii")
    (root / "srv/accounts").mkdir(parents=True, exist_ok=True)
    units = root / "etc/systemd/system"
    for unit in recipe.MASKED_UNITS:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    run(
        ["chroot", str(root), "systemctl", "enable", *recipe.ENABLED_UNITS], timeout_seconds=STEP_TIMEOUT_SECONDS
    ).check()


def _remove(root: Path, pattern: str) -> None:
    for path in root.glob(pattern):
        path.unlink()


def refresh_apt(root: Path) -> None:
    """Let the image's apt read its one folder, so that the first install on a node finds warm caches."""
    lists = root / "var/lib/apt/lists"
    shutil.rmtree(lists, ignore_errors=True)
    (lists / "partial").mkdir(parents=True)
    commands = [["apt-get", "update", "--quiet"], ["apt-cache", "gencaches"]]
    # Where systemd watches for changes of /usr (trixie), tell it that there are none: no node rebuilds caches at boot.
    if (root / UPDATE_DONE).exists():
        commands.append([f"/{UPDATE_DONE}"])
    for argv in commands:
        run(["chroot", str(root), *argv], timeout_seconds=STEP_TIMEOUT_SECONDS).check()
