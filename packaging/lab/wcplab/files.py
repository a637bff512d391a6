"""Packing files for the way into a node, and unpacking what comes out.

Everything goes through tar streams that the node's own tar reads and writes: a path is then resolved inside the node,
and a symbolic link there can never lead this machine's root to one of its own files.
"""

from __future__ import annotations

import io
import shutil
import tarfile
import tempfile
from pathlib import Path

from wcplab.errors import LabError
from wcplab.process import run

UNPACK_TIMEOUT_SECONDS = 600.0


def pack(source: Path, name: str) -> bytes:
    """Return a tar stream of a file or directory under another name, owned by root.

    Raises:
        LabError: there is nothing to pack.
    """
    if not source.exists():
        raise LabError("no_such_file", f"{source} does not exist")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        archive.add(source, arcname=name, filter=_owned_by_root)
    return packed.getvalue()


def _owned_by_root(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member


def unpack(packed: bytes, name: str, destination: Path) -> None:
    """Unpack the one entry of a tar stream to a path on this machine.

    Raises:
        LabError: there is a directory of that name already; a file is replaced.
    """
    destination = destination.absolute()
    if destination.is_dir():
        raise LabError("is_directory", f"{destination} is a directory", hint="name the copy itself, not its folder")
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent) as temporary:
        # GNU tar refuses names with ".." and absolute names by itself.
        argv = ["tar", "--extract", "--no-same-owner", "--directory", temporary, "--file=-"]
        run(argv, timeout_seconds=UNPACK_TIMEOUT_SECONDS, stdin=packed).check()
        shutil.move(Path(temporary, name), destination)
