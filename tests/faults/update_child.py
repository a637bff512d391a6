"""An updater process that tests let die: `update_child.py ROOT [REQUEST BUNDLE]`. Recovers, then carries out the request."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import msgspec

from agent.link.settings import NodePaths
from agent.update.updater import BUNDLE_NAME, Updater
from shared.protocol.release import SignedRelease
from tests.faults.update_bench import QUICK, FolderServices


async def main(root: Path, release: SignedRelease | None, bundle: bytes) -> None:
    paths = NodePaths(root)
    updater = Updater(paths, FolderServices(paths), waits=QUICK)
    await updater.recover()
    if release is None:
        return
    judged = updater.judge(release)
    updater.files.incoming.mkdir(parents=True, exist_ok=True)
    (updater.files.incoming / BUNDLE_NAME).write_bytes(bundle)
    await updater.carry_out("attempt-1", judged)


def read_request(words: list[str]) -> tuple[SignedRelease | None, bytes]:
    """What the files named on the command line hold; nothing when none are."""
    if not words:
        return None, b""
    request, bundle = (Path(word).read_bytes() for word in words)
    return msgspec.msgpack.decode(request, type=SignedRelease), bundle


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), *read_request(sys.argv[2:])))
