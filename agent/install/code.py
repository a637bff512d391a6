"""The agent's code on a node: one folder for each version, and a link that is switched in one step."""

from __future__ import annotations

import compileall
import os
import shutil
from pathlib import Path
from typing import Final

import msgspec

from agent.link.setup_errors import ExitCode, SetupError

CURRENT: Final = "current"
"""The link that the agent and the executor run from."""
UPDATER: Final = "updater"
"""The link that the updater runs from: the last version that was proven."""
KEEP_VERSIONS: Final = 2
"""The current one and the one before, to go back to."""
BUNDLE_CONTENT: Final = ("agent", "shared", "lib", "bin", "units", "bundle.json")
"""What of a bundle is installed."""


class BundleInfo(msgspec.Struct, frozen=True, kw_only=True):
    """bundle.json."""

    version: str
    build: str
    """`VERSION-HASH` of the content: two builds of one version have different ones."""
    capability: int = 1


def read_bundle_info(bundle: Path) -> BundleInfo:
    """What an unpacked bundle, or an installed version, says of itself.

    Raises:
        SetupError: It is none.
    """
    try:
        return msgspec.json.decode((bundle / "bundle.json").read_bytes(), type=BundleInfo)
    except (OSError, msgspec.MsgspecError) as error:
        raise SetupError(
            ExitCode.UNEXPECTED,
            f"{bundle} is no agent bundle",
            hint="The installer runs from the bundle that the controller serves.",
        ) from error


def find_current_build(program_dir: Path, *, link: str = CURRENT) -> str | None:
    """Which build a link points at."""
    try:
        return (program_dir / link).readlink().name
    except OSError:
        return None


def ensure_version(bundle: Path, info: BundleInfo, program_dir: Path) -> bool:
    """Copy the bundle beside the other versions; True when it was not there. It appears whole or not at all."""
    target = program_dir / "versions" / info.build
    if target.is_dir():
        return False
    staging = target.with_name(f".{info.build}.new")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(mode=0o755)
    for name in BUNDLE_CONTENT:
        source = bundle / name
        if source.is_dir():
            shutil.copytree(source, staging / name, symlinks=False)
        else:
            shutil.copy2(source, staging / name)
    _own_by_root(staging)
    # The services may not write here, so the byte code is made now; stripdir keeps the staging name out of tracebacks.
    compileall.compile_dir(
        staging, quiet=2, workers=1, stripdir=str(staging), prependdir=str(program_dir / "current"), rx=None
    )
    staging.rename(target)
    return True


def _own_by_root(tree: Path) -> None:
    for folder, _, files in os.walk(tree):
        paths = [Path(folder), *(Path(folder) / name for name in files)]
        for path in paths:
            is_open = path.is_dir() or path.parent.name == "bin"
            path.chmod(0o755 if is_open else 0o644)
            if os.geteuid() == 0:  # else a test installs into a folder of its own
                os.chown(path, 0, 0)


def ensure_current(program_dir: Path, build: str, *, link: str = CURRENT) -> bool:
    """Point a link at a version in one step; True when it pointed elsewhere."""
    if find_current_build(program_dir, link=link) == build:
        return False
    staging = program_dir / f".{link}.new"
    staging.unlink(missing_ok=True)
    staging.symlink_to(Path("versions") / build)
    staging.replace(program_dir / link)
    return True


def sync_file(path: Path) -> None:
    """Its content is on the disk afterwards."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def prune_versions(program_dir: Path) -> list[str]:
    """Remove the oldest versions but the last KEEP_VERSIONS; never one that a link points at. Returns the removed."""
    linked = {find_current_build(program_dir), find_current_build(program_dir, link=UPDATER)}
    folders = sorted((program_dir / "versions").iterdir(), key=lambda folder: folder.stat().st_mtime, reverse=True)
    others = [folder for folder in folders if folder.name not in linked]
    for folder in others[KEEP_VERSIONS - 1 :]:
        shutil.rmtree(folder)
    return [folder.name for folder in others[KEEP_VERSIONS - 1 :]]
