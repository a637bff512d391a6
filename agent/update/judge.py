"""Whether a release may take the place of the running one. Decided from root-owned files and signatures only."""

from __future__ import annotations

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from agent.update.state import Floor
from shared.errors import RefusedError
from shared.protocol.release import ReleaseManifest, SignedRelease, open_release, open_release_keys, parse_version


class Trusted(msgspec.Struct, frozen=True, kw_only=True):
    """What this node is and believes; `root_keys` is key id to key."""

    cluster_id: str
    root_keys: dict[str, Ed25519PublicKey]
    architecture: str
    version: str
    """Of the running release."""
    build: str
    floor: Floor


class Judged(msgspec.Struct, frozen=True, kw_only=True):
    """A release that may be taken, and the floor that its documents have raised."""

    manifest: ReleaseManifest
    floor: Floor
    is_running: bool
    """It is the one that runs: there is nothing to do."""


def effective_now(clock: float, floor: Floor) -> float:
    """The later of the clock and the latest time that was ever signed for us."""
    return max(clock, floor.seen_at)


def judge_release(release: SignedRelease, trusted: Trusted, *, now: float) -> Judged:
    """Verify both signatures, then compare with what runs.

    Raises:
        RefusedError: `bad_signature`, `wrong_cluster`, `release_expired`, `stale_release`, `wrong_architecture` or
            `update_too_far`.
        InvalidInputError: One of the documents makes no sense.
    """
    keys = open_release_keys(release.keys, root_keys=trusted.root_keys, cluster_id=trusted.cluster_id, now=now)
    if keys.version < trusted.floor.keys_version:
        raise RefusedError("a newer list of release keys was seen before", code="stale_release")
    manifest = open_release(release.manifest, keys=keys, now=now)
    floor = Floor(
        number=trusted.floor.number, keys_version=keys.version, seen_at=max(keys.issued_at, manifest.issued_at)
    )
    if manifest.architecture != trusted.architecture:
        raise RefusedError(
            f"the release is for {manifest.architecture}, this machine is {trusted.architecture}",
            code="wrong_architecture",
        )
    if manifest.build == trusted.build:
        return Judged(manifest=manifest, floor=floor, is_running=True)
    _require_forward(manifest, trusted)
    return Judged(manifest=manifest, floor=floor, is_running=False)


def _require_forward(manifest: ReleaseManifest, trusted: Trusted) -> None:
    """Never back, neither by version nor by number: an old manifest with its good signature is an attack."""
    running = parse_version(trusted.version)
    if parse_version(manifest.version) < running:
        raise RefusedError(f"{manifest.version} is older than {trusted.version}, which runs", code="stale_release")
    if manifest.number <= trusted.floor.number:
        raise RefusedError(
            f"release {manifest.number} is not newer than release {trusted.floor.number}, which ran here",
            code="stale_release",
        )
    if running < parse_version(manifest.min_from):
        raise RefusedError(
            f"{manifest.version} takes over from {manifest.min_from} at the earliest, {trusted.version} runs",
            code="update_too_far",
            hint="Update to a release in between first, or run the installer again.",
        )
