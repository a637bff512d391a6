"""What a disk may look like after the power went: everything that was not synchronised may be gone, or half there.

A program runs under strace; its writes, renames and fsyncs are read from the trace and played into a model that keeps
what is in memory apart from what a disk must have. The model is stricter than ext4: fsync of a file promises its content
and rights and nothing about its name; fsync of a folder promises the names in it.

Source: fsync(2), NOTES; the idea is lazyfs (https://github.com/dsrhaslab/lazyfs) and ALICE (OSDI 2014).
"""

from __future__ import annotations

import copy
import os
import random
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

CALLS = (
    "openat,open,creat,close,write,pwrite64,rename,renameat,renameat2,unlink,unlinkat,mkdir,mkdirat,rmdir,ftruncate,"
    "fsync,fdatasync,fchmod,fchown,chmod,symlink,symlinkat,link,linkat,lseek"
)
_LINE = re.compile(r"^(\d+) +(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_UNFINISHED = re.compile(r"^(\d+) +(.*) <unfinished \.\.\.>$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. \w+ resumed>(.*)$")
_TEXT = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_DESCRIPTOR = re.compile(r"^(-?\d+|AT_FDCWD)<((?:[^>\\]|\\.)*)>")


def record(argv: Sequence[str], trace: Path, *, cwd: Path, timeout_seconds: float = 120.0) -> None:
    """Run a program to its end under strace."""
    words = ["strace", "-f", "-y", "-xx", "-s", "4000000", "-o", str(trace), "-e", f"trace={CALLS}", "-qq", *argv]
    subprocess.run(words, cwd=cwd, check=True, timeout=timeout_seconds, capture_output=True)


def read_calls(trace: Path) -> Iterator[tuple[str, str, int]]:
    """Name, arguments and result of each call, in order."""
    open_ends: dict[str, str] = {}
    for raw in trace.read_text(encoding="latin-1").split("\n"):
        line = raw
        if found := _UNFINISHED.match(line):
            open_ends[found.group(1)] = f"{found.group(1)} {found.group(2)}"
            continue
        if found := _RESUMED.match(line):
            line = open_ends.pop(found.group(1)) + found.group(2)
        if found := _LINE.match(line):
            yield found.group(2), found.group(3), int(found.group(4))


def _texts(arguments: str) -> list[bytes]:
    return [bytes.fromhex(text.replace("\\x", "")) for text in _TEXT.findall(arguments)]


@dataclass
class Inode:
    """One file, folder or link: as it is, and as the disk must have it."""

    kind: str
    data: bytearray = field(default_factory=bytearray)
    mode: int = 0o755
    saved: bytes = b""
    saved_mode: int = 0o600

    def save(self) -> None:
        self.saved, self.saved_mode = bytes(self.data), self.mode


@dataclass
class Disk:
    """A folder tree whose content is known and that is watched from then on; paths are relative to it."""

    names: dict[str, Inode] = field(default_factory=dict)
    saved_names: dict[str, Inode] = field(default_factory=dict)

    @classmethod
    def of(cls, root: Path) -> Disk:
        """What is there before is safe."""
        disk = cls()
        for path in sorted(root.rglob("*")):
            found = path.lstat()
            if path.is_symlink():
                inode = Inode("link", bytearray(os.fsencode(path.readlink())))
            elif path.is_dir():
                inode = Inode("folder", mode=stat.S_IMODE(found.st_mode))
            elif path.is_file():
                inode = Inode("file", bytearray(path.read_bytes()), stat.S_IMODE(found.st_mode))
            else:
                continue
            inode.save()
            disk.names[str(path.relative_to(root))] = inode
        disk.saved_names = dict(disk.names)
        return disk

    def sync(self, path: str) -> None:
        """fsync of what has this name."""
        inode = self.names.get(path)
        if inode is not None:
            inode.save()
        if path == "." or (inode is not None and inode.kind == "folder"):
            for name in self._children(self.saved_names, path) - self._children(self.names, path):
                del self.saved_names[name]
            for name in self._children(self.names, path):
                self.saved_names[name] = self.names[name]

    def _children(self, names: dict[str, Inode], folder: str) -> set[str]:
        return {name for name in names if str(Path(name).parent) == folder}

    def rename(self, old: str, new: str) -> None:
        below = {name: inode for name, inode in self.names.items() if name == old or name.startswith(f"{old}/")}
        for name in below:
            del self.names[name]
        for name, inode in below.items():
            self.names[new + name[len(old) :]] = inode

    def lose(self, root: Path, choice: random.Random | None) -> None:
        """Write what the disk has after a power cut; None: only what it must have, else more or less of the rest."""
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        names = dict(self.saved_names)
        if choice is not None:
            # Each name is the old or the new one, independently of the others.
            for name in sorted(self.names.keys() | names.keys()):
                if self.names.get(name) is not names.get(name) and choice.random() < 0.5:
                    names.pop(name, None)
                    if name in self.names:
                        names[name] = self.names[name]
        for name in sorted(names):
            parent = str(Path(name).parent)
            if not name.endswith("-shm") and (parent == "." or (parent in names and names[parent].kind == "folder")):
                _write(root / name, names[name], choice)


def _write(path: Path, inode: Inode, choice: random.Random | None) -> None:
    if not path.parent.is_dir():
        return
    if inode.kind == "link":
        path.symlink_to(os.fsdecode(bytes(inode.data)))
        return
    is_new = choice is not None and choice.random() < 0.5
    if inode.kind == "folder":
        path.mkdir()
    else:
        content = bytes(inode.data) if is_new else inode.saved
        if is_new and choice is not None and content != inode.saved and choice.random() < 0.3:
            # Written from its beginning up to somewhere; behind that it is what was safe before.
            torn = choice.randrange(len(content) + 1)
            content = content[:torn] + inode.saved[torn:]
        path.write_bytes(content)
    path.chmod(inode.mode if is_new else inode.saved_mode)


class Player:
    """Plays a trace into a disk, call by call.

    Args:
        disk: As it was when the program began.
        root: The folder that the disk stands for.
    """

    def __init__(self, disk: Disk, root: Path) -> None:
        self.disk = disk
        self.root = root
        self.said = b""
        """What the program wrote to its standard output so far."""
        self._offsets: dict[int, int] = {}
        self._open: dict[int, Inode] = {}

    def play(self, name: str, arguments: str, result: int) -> bool:
        """Whether it changed anything that matters."""
        if result < 0:
            return False
        method = getattr(self, f"_{name.removesuffix('64').removesuffix('2')}", None)
        return bool(method is not None and method(arguments, _texts(arguments), result))

    def _below(self, path: bytes) -> str | None:
        text = os.path.normpath(os.fsdecode(path))
        root = str(self.root)
        if text == root:
            return "."
        return text[len(root) + 1 :] if text.startswith(f"{root}/") else None

    def _at(self, arguments: str, number: int, texts: list[bytes]) -> str | None:
        """The path of the number-th text, resolved against the descriptor before it."""
        text = texts[number]
        if text.startswith(b"/"):
            return self._below(text)
        folders = re.findall(r"(?:AT_FDCWD|\d+)<((?:\\x[0-9a-f]{2}|[^>])*)>", arguments)
        folder = _unhex(folders[min(number, len(folders) - 1)])
        return self._below(folder + b"/" + text)

    def _descriptor(self, arguments: str) -> tuple[int, str | None]:
        found = _DESCRIPTOR.match(arguments)
        if found is None:
            return -1, None
        return int(found.group(1)), self._below(_unhex(found.group(2)))

    # --- calls ------------------------------------------------------------------------------------------------------------

    def _openat(self, arguments: str, texts: list[bytes], result: int) -> bool:
        path = self._at(arguments, 0, texts)
        if path is None or "O_PATH" in arguments:
            return False
        inode = self.disk.names.get(path)
        is_new = inode is None and "O_CREAT" in arguments
        if is_new:
            mode = re.search(r", (0\d+)", arguments)
            inode = self.disk.names[path] = Inode("file", mode=int(mode.group(1), 8) & ~0o022 if mode else 0o644)
        if inode is None:
            return False
        if "O_TRUNC" in arguments:
            inode.data = bytearray()
        self._open[result], self._offsets[result] = inode, 0
        return is_new

    def _close(self, arguments: str, _texts: list[bytes], _result: int) -> bool:
        number, _ = self._descriptor(arguments)
        self._open.pop(number, None)
        return False

    def _lseek(self, arguments: str, _texts: list[bytes], result: int) -> bool:
        self._offsets[self._descriptor(arguments)[0]] = result
        return False

    def _write(self, arguments: str, texts: list[bytes], result: int) -> bool:
        number, _ = self._descriptor(arguments)
        if number == 1:
            self.said += texts[0][:result]
        if number not in self._open:
            return False
        self._put(number, texts[0][:result], self._offsets[number])
        self._offsets[number] += result
        return True

    def _pwrite(self, arguments: str, texts: list[bytes], result: int) -> bool:
        number, _ = self._descriptor(arguments)
        if number not in self._open:
            return False
        self._put(number, texts[0][:result], int(arguments.rpartition(", ")[2]))
        return True

    def _put(self, number: int, content: bytes, offset: int) -> None:
        data = self._open[number].data
        data.extend(b"\0" * (offset - len(data)))
        data[offset : offset + len(content)] = content

    def _ftruncate(self, arguments: str, _texts: list[bytes], _result: int) -> bool:
        number, _ = self._descriptor(arguments)
        size = int(arguments.rpartition(", ")[2])
        if number in self._open:
            data = self._open[number].data
            del data[size:]
            data.extend(b"\0" * (size - len(data)))
        return number in self._open

    def _fsync(self, arguments: str, _texts: list[bytes], _result: int) -> bool:
        number, path = self._descriptor(arguments)
        if number in self._open:
            self._open[number].save()
        if path is not None:
            self.disk.sync(path)
        return path is not None

    _fdatasync = _fsync

    def _fchmod(self, arguments: str, _texts: list[bytes], _result: int) -> bool:
        _, path = self._descriptor(arguments)
        inode = self.disk.names.get(path or "")
        if inode is not None:
            inode.mode = int(arguments.rpartition(", ")[2], 8)
        return inode is not None

    def _chmod(self, arguments: str, texts: list[bytes], _result: int) -> bool:
        inode = self.disk.names.get(self._below(texts[0]) or "")
        if inode is not None:
            inode.mode = int(arguments.rpartition(", ")[2], 8)
        return inode is not None

    def _rename(self, arguments: str, texts: list[bytes], _result: int) -> bool:
        old, new = self._at(arguments, 0, texts), self._at(arguments, 1, texts)
        if old is None or new is None:
            return False
        self.disk.rename(old, new)
        return True

    _renameat = _rename

    def _unlink(self, arguments: str, texts: list[bytes], _result: int) -> bool:
        path = self._at(arguments, 0, texts)
        return path is not None and self.disk.names.pop(path, None) is not None

    _unlinkat = _rmdir = _unlink

    def _mkdir(self, arguments: str, texts: list[bytes], _result: int) -> bool:
        path = self._at(arguments, 0, texts)
        if path is None:
            return False
        self.disk.names[path] = Inode("folder", mode=int(arguments.rpartition(", ")[2], 8) & ~0o022)
        return True

    _mkdirat = _mkdir

    def _symlink(self, arguments: str, texts: list[bytes], _result: int) -> bool:
        path = self._at(arguments, -1, texts)
        if path is not None:
            self.disk.names[path] = Inode("link", bytearray(texts[0]))
        return path is not None

    _symlinkat = _symlink


def _unhex(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", "")) if text.startswith("\\x") else text.encode("latin-1")


def snapshot_of(disk: Disk) -> Disk:
    """A disk at this moment, to be lost later."""
    return copy.deepcopy(disk)
