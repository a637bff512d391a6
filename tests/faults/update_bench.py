"""A node in a folder, releases to update it to, and services that outlive the process that asked for them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import tarfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from agent.core.identity import Identity, save_identity
from agent.link.settings import NodePaths
from agent.link.status_file import LinkState, LinkStatus
from agent.update.judge import Judged
from agent.update.updater import BUNDLE_NAME, Updater, Waits
from shared.errors import CommandError
from shared.protocol.envelope import sign_envelope
from shared.protocol.release import (
    RELEASE_KEYS_TYPE,
    RELEASE_TYPE,
    ReleaseKey,
    ReleaseKeys,
    ReleaseManifest,
    SignedRelease,
    encode_release_document,
)

CLUSTER = "3f1c6f3a-6a3e-4f0e-9a65-0f3f5f0a8a01"
OLD = "1.0.0-aaaaaaaaaaaa"
UNIT_NAMES = ("wcp-agent.service", "wcp-executor.service", "wcp-executor.socket")
QUICK = Waits(welcome=0.3, returned=0.2, idle=0.3, poll=0.01)


def public_bytes(key: Ed25519PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)


def make_bundle(build: str, version: str, *, capability: int = 2, extra: dict[str, bytes] | None = None) -> bytes:
    """A bundle of the right shape; the units differ from build to build."""
    files = {
        "bundle.json": json.dumps({"version": version, "build": build, "capability": capability}).encode(),
        "agent/__init__.py": b"",
        "agent/marker.py": f'BUILD = "{build}"\n'.encode(),
        "shared/__init__.py": b"",
        "lib/common/dependency.py": b"",
        "bin/wcp-agent": b"#!/bin/sh\n",
        **{f"units/{name}": f"# {name} of {build}\n".encode() for name in UNIT_NAMES},
        **(extra or {}),
    }
    return pack({name: tarfile.TarInfo(name) for name in files}, files)


def pack(members: dict[str, tarfile.TarInfo], contents: dict[str, bytes]) -> bytes:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, member in members.items():
            member.size = len(contents.get(name, b""))
            archive.addfile(member, io.BytesIO(contents.get(name, b"")))
    return gzip.compress(plain.getvalue(), mtime=0)


@dataclass
class Publisher:
    """The controller's side: a root key, a release key, and what it signs."""

    root: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    keys_version: int = 1

    def manifest(self, build: str, bundle: bytes, **changes: object) -> ReleaseManifest:
        now = time.time()
        manifest = ReleaseManifest(
            cluster_id=CLUSTER,
            number=2,
            version=build.partition("-")[0],
            build=build,
            sha256=hashlib.sha256(bundle).hexdigest(),
            size_bytes=len(bundle),
            capability=2,
            architecture=platform.machine(),
            min_from="0.0.0",
            issued_at=now,
            expires_at=now + 86_400,
        )
        return msgspec.structs.replace(manifest, **changes)

    def keys(self, **changes: object) -> ReleaseKeys:
        now = time.time()
        key = ReleaseKey(kid="r1", public_key=public_bytes(self.key), not_before=now - 600, expires_at=now + 86_400)
        keys = ReleaseKeys(
            cluster_id=CLUSTER, version=self.keys_version, issued_at=now, expires_at=now + 86_400, keys=(key,)
        )
        return msgspec.structs.replace(keys, **changes)

    def sign(self, manifest: ReleaseManifest, keys: ReleaseKeys | None = None) -> SignedRelease:
        return SignedRelease(
            keys=sign_envelope(RELEASE_KEYS_TYPE, encode_release_document(keys or self.keys()), {"root-1": self.root}),
            manifest=sign_envelope(RELEASE_TYPE, encode_release_document(manifest), {"r1": self.key}),
        )


class FolderServices:
    """What "runs" is a file, so that it is still there when the updater has died. Some builds never come up."""

    def __init__(self, paths: NodePaths) -> None:
        self._paths = paths
        self.log: list[str] = []

    async def self_test(self, program: Path) -> None:
        self.log.append("self_test")
        if (program / "agent/broken.py").exists():
            raise CommandError(("python3",), 1, "ImportError: broken")

    async def is_idle(self) -> bool:
        return not (self._paths.root / "busy").exists()

    async def stop(self) -> None:
        self.log.append("stop")
        self._paths.status_json.unlink(missing_ok=True)

    async def start(self) -> None:
        program = (self._paths.program_dir / "current").resolve()
        build = json.loads((program / "bundle.json").read_bytes())["build"]
        self.log.append(f"start {build}")
        is_well = not (program / "agent/deaf.py").exists()
        status = LinkStatus(
            state=LinkState.CONNECTED if is_well else LinkState.WAITING,
            changed_at=time.time(),
            build=build,
            last_error="" if is_well else "the gateway's port is closed",
        )
        self._paths.runtime_dir.mkdir(parents=True, exist_ok=True)
        self._paths.status_json.write_bytes(msgspec.json.encode(status))

    async def describe_agent(self) -> str:
        return "ActiveState=active"


@dataclass
class UpdateNode:
    """A node that runs OLD."""

    paths: NodePaths
    publisher: Publisher

    @property
    def running(self) -> str:
        """Build that the link points at."""
        return (self.paths.program_dir / "current").readlink().name

    @property
    def units(self) -> dict[str, str]:
        folder = self.paths.root / "etc/systemd/system"
        return {path.name: path.read_text() for path in folder.iterdir()}

    @property
    def versions(self) -> set[str]:
        return {path.name for path in (self.paths.program_dir / "versions").iterdir()}

    def updater(self, services: FolderServices | None = None, **options: object) -> Updater:
        return Updater(self.paths, services or FolderServices(self.paths), waits=QUICK, **options)  # type: ignore[arg-type]

    def receive(self, updater: Updater, bundle: bytes) -> None:
        """What the server does with the bytes of a request."""
        updater.files.incoming.mkdir(parents=True, exist_ok=True)
        (updater.files.incoming / BUNDLE_NAME).write_bytes(bundle)

    def judged(self, updater: Updater, build: str, bundle: bytes, **changes: object) -> Judged:
        return updater.judge(self.publisher.sign(self.publisher.manifest(build, bundle, **changes)))


def make_node(root: Path, publisher: Publisher | None = None) -> UpdateNode:
    paths = NodePaths(root)
    publisher = publisher or Publisher()
    for folder in (paths.updater_state_dir, paths.executor_state_dir, paths.runtime_dir, root / "etc/systemd/system"):
        folder.mkdir(parents=True)
    program = paths.program_dir / "versions" / OLD
    with tarfile.open(fileobj=io.BytesIO(make_bundle(OLD, "1.0.0"))) as archive:
        archive.extractall(program, filter="data")
    for link in ("current", "updater"):
        (paths.program_dir / link).symlink_to(Path("versions") / OLD)
    for name in UNIT_NAMES:
        (root / "etc/systemd/system" / name).write_text(f"# {name} of {OLD}\n")
    identity = Identity(
        cluster_id=CLUSTER, node_id="node-1", node_gen=1, root_keys={"root-1": public_bytes(publisher.root)}
    )
    save_identity(paths.executor_state_dir, identity)
    return UpdateNode(paths, publisher)
