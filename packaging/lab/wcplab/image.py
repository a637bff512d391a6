"""The cache of node images: found by recipe, built once, whole or not at all, and pruned when nobody needs them."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

from wcplab import image_build, locks, mounts, recipe
from wcplab.image_build import Progress
from wcplab.paths import LOCK_DIRECTORY, cache_directory, state_directory
from wcplab.process import run

BUILD_LOCK_TIMEOUT_SECONDS = 1800.0
PRUNE_AFTER_SECONDS = 3600.0
"""Two checkouts with different recipes may share a cache: an image that was wanted lately stays."""


@dataclass(frozen=True)
class Image:
    """A node image that is ready to be used."""

    suite: str
    key: str
    root: str
    """The unpacked root directory; must never be written to."""
    size_bytes: int
    build_seconds: float


def find_image(key: str) -> Image | None:
    """Return the image of this key, or None when it is not built."""
    manifest = cache_directory() / key / "image.json"
    if not manifest.is_file():
        return None
    values = json.loads(manifest.read_text("utf-8"))
    return Image(root=str(manifest.parent / "root"), **values)


def ensure_images(suites: Sequence[str], progress: Progress) -> dict[str, Image]:
    """Return the current image of each suite, building what is missing, all suites at once.

    Raises:
        LabError: a build failed.
    """
    wanted = list(dict.fromkeys(recipe.require_suite(suite) for suite in suites))
    with ThreadPoolExecutor(max_workers=len(wanted)) as pool:
        images = list(pool.map(lambda suite: ensure_image(suite, progress), wanted))
    return dict(zip(wanted, images, strict=True))


def ensure_image(suite: str, progress: Progress) -> Image:
    """Return the current image of a suite; build it when its recipe has none yet.

    Changes: the image cache. Safe when two processes want the same image: one builds, the other waits and uses it.
    """
    key = recipe.image_key(suite)
    if found := _use(key):
        return found
    with locks.locked(LOCK_DIRECTORY / f"image-{suite}.lock", timeout_seconds=BUILD_LOCK_TIMEOUT_SECONDS):
        if found := _use(key):
            return found
        _remove_unfinished(suite)
        image = _build(suite, key, progress)
        prune(suite, keep=key)
        return image


def _use(key: str) -> Image | None:
    """Return an image that is built, and note that somebody wants it."""
    found = find_image(key)
    if found:
        os.utime(cache_directory() / key / "image.json")
    return found


def _build(suite: str, key: str, progress: Progress) -> Image:
    started = time.monotonic()
    work = cache_directory() / f".build-{key}"
    root = work / "root"
    root.mkdir(parents=True)
    image_build.build(suite, root, progress)
    size = run(["du", "--summarize", "--bytes", str(root)], timeout_seconds=120.0).check()
    seconds = round(time.monotonic() - started, 1)
    image = Image(suite, key, str(cache_directory() / key / "root"), int(size.stdout.split()[0]), seconds)
    values = asdict(image)
    del values["root"]
    (work / "image.json").write_text(json.dumps(values), encoding="utf-8")
    work.rename(cache_directory() / key)
    progress(f"image {suite}: ready, {image.size_bytes // 2**20} MiB in {image.build_seconds} s")
    return image


def _remove_unfinished(suite: str) -> None:
    """Remove what builds that died left behind; the suite's lock is held, so none of them is alive."""
    for leftover in cache_directory().glob(f".build-{suite}-*"):
        mounts.unmount_all(leftover)
        shutil.rmtree(leftover)


def prune(suite: str, *, keep: str) -> None:
    """Remove images of a suite that no lab is built on and nobody wanted lately, except one."""
    used = {layer.parent.resolve() for layer in mounts.list_overlay_layers()} | _images_of_labs()
    for directory in cache_directory().glob(f"{suite}-*"):
        if (
            directory.name != keep
            and directory.resolve() not in used
            and _idle_seconds(directory) > PRUNE_AFTER_SECONDS
        ):
            shutil.rmtree(directory)


def _idle_seconds(directory: Path) -> float:
    manifest = directory / "image.json"
    return time.time() - (manifest if manifest.exists() else directory).stat().st_mtime


def _images_of_labs() -> set[Path]:
    """The images that labs name, stopped ones too: their disks are worthless without the layer below."""
    used = set()
    for definition in state_directory().glob("*/lab.json"):
        for node in json.loads(definition.read_text("utf-8"))["nodes"]:
            used.add((cache_directory() / node["image_key"]).resolve())
    return used
