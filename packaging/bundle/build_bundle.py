"""Builds what a controller serves to new nodes: agent.tar.gz, the template of install.sh, and manifest.json.

Usage: build_bundle.py --out DIR [--architecture x86_64|aarch64]

The bundle holds the agent's sources, its systemd units and its libraries for the Pythons of Debian 12 (3.11) and Debian
13 (3.13), so that a node needs nothing but Debian's own packages. The same content gives the same bytes. Libraries are
kept in a cache outside the checkout, under the hash of the lock file: the second build takes no network and a second.
Standard library only, run by `make run` and by the controller's setup.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
LOCK_FILE: Final = Path(__file__).with_name("requirements-agent.lock")
INSTALL_TEMPLATE: Final = REPOSITORY / "packaging/install/install.sh"
UNITS_DIR: Final = REPOSITORY / "packaging/systemd"

PYTHON_VERSIONS: Final = ("3.11", "3.13")
"""Debian 12 and Debian 13."""
PLATFORMS: Final = {"x86_64": "x86_64-manylinux_2_28", "aarch64": "aarch64-manylinux_2_28"}
"""Both Debians have a newer glibc (2.36, 2.41) than these wheels ask for."""

SOURCE_PACKAGES: Final = ("agent", "shared")
SOURCE_SUFFIXES: Final = (".py", ".j2", ".html", ".conf", ".typed")
INSTALL_SECONDS: Final = 900
KEPT_ARCHIVES: Final = 5

# Never imported on a node: tests, type stubs, headers, and the metadata that only pip reads.
_DROPPED_DIRS: Final = frozenset(("__pycache__", "tests", "test", "bin", "include"))
_DROPPED_SUFFIXES: Final = (".pyi", ".pyc", ".c", ".h", ".pxd", ".pyx", ".md", ".rst")
_LICENSE_WORDS: Final = ("license", "licence", "copying", "notice")

WRAPPER: Final = """#!/bin/sh
# The agent's command line on a node. -P: the current directory is not searched for modules.
PYTHONPATH=/opt/wcp360/current PYTHONDONTWRITEBYTECODE=1 exec /usr/bin/python3 -P -m agent "$@"
"""

Content = dict[str, tuple[bytes, int]]
"""Path inside the bundle to bytes and mode."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder for agent.tar.gz, install.sh, manifest.json")
    parser.add_argument("--architecture", choices=sorted(PLATFORMS), default="x86_64")
    arguments = parser.parse_args()
    try:
        manifest = build(arguments.out, arguments.architecture)
    except (OSError, subprocess.SubprocessError) as error:
        print(f"error: the agent bundle could not be built: {error}", file=sys.stderr)
        return 1
    print(f"agent bundle {manifest['build']}: {manifest['size_bytes']} bytes, sha256 {manifest['sha256']}")
    return 0


def build(out: Path, architecture: str) -> dict[str, object]:
    """Write the three files, each whole or not at all; returns the manifest."""
    version = read_version()
    content: Content = dict(list_sources())
    content.update(list_all_libraries(architecture))
    build_id = f"{version}-{digest_content(content)[:12]}"
    info = {"version": version, "build": build_id, "capability": read_capability()}
    content["bundle.json"] = (json.dumps(info, sort_keys=True).encode() + b"\n", 0o644)
    archive = ensure_archive(content)
    manifest: dict[str, object] = {
        **info,
        "sha256": hashlib.sha256(archive).hexdigest(),
        "size_bytes": len(archive),
        "architecture": architecture,
        "python_tags": [f"cp{python_version.replace('.', '')}" for python_version in PYTHON_VERSIONS],
    }
    out.mkdir(parents=True, exist_ok=True)
    write_whole(out / "agent.tar.gz", archive)
    write_whole(out / "install.sh", INSTALL_TEMPLATE.read_bytes())
    # Last: a reader that sees the manifest finds the files it speaks of.
    write_whole(out / "manifest.json", json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
    return manifest


def read_version() -> str:
    """`__version__` of shared/version.py, without importing the product."""
    return str(read_constant("shared/version.py", "__version__"))


def read_capability() -> int:
    """`CAPABILITY_VERSION` of shared/protocol/capability.py."""
    return int(str(read_constant("shared/protocol/capability.py", "CAPABILITY_VERSION")))


def read_constant(path: str, name: str) -> object:
    """The value that a file of ours gives to a name."""
    for statement in ast.parse((REPOSITORY / path).read_text(encoding="utf-8")).body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        is_it = any(isinstance(target, ast.Name) and target.id == name for target in targets)
        value = getattr(statement, "value", None)
        if is_it and isinstance(value, ast.Constant):
            return value.value
    raise OSError(f"{path} holds no {name}")


def list_sources() -> Iterator[tuple[str, tuple[bytes, int]]]:
    """Our own files: packages, units, the wrapper."""
    for package in SOURCE_PACKAGES:
        for path in sorted((REPOSITORY / package).rglob("*")):
            if path.is_file() and path.suffix in SOURCE_SUFFIXES and "__pycache__" not in path.parts:
                yield path.relative_to(REPOSITORY).as_posix(), (path.read_bytes(), 0o644)
    for unit in sorted(UNITS_DIR.glob("wcp-*")):
        yield f"units/{unit.name}", (unit.read_bytes(), 0o644)
    yield "bin/wcp-agent", (WRAPPER.encode(), 0o755)
    yield "LICENSE", ((REPOSITORY / "LICENSE").read_bytes(), 0o644)


def list_all_libraries(architecture: str) -> Content:
    """lib/pyXXX for what differs between the Pythons; lib/common once for each package that is the same for all."""
    folders = {f"py{version.replace('.', '')}": ensure_libraries(version, architecture) for version in PYTHON_VERSIONS}
    packages = {tag: group_by_package(folder) for tag, folder in folders.items()}
    first, *others = packages.values()
    common = {name for name, files in first.items() if all(other.get(name) == files for other in others)}
    content: Content = {}
    for tag, groups in packages.items():
        for name, files in groups.items():
            folder = "common" if name in common else tag
            content.update({f"lib/{folder}/{path}": (data, 0o644) for path, data in files.items()})
    return content


def group_by_package(folder: Path) -> dict[str, dict[str, bytes]]:
    """Top-level name to its files: the unit that is importable as a whole from one folder."""
    groups: dict[str, dict[str, bytes]] = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and is_kept(relative):
            groups.setdefault(relative.parts[0], {})[relative.as_posix()] = path.read_bytes()
    return groups


def is_kept(relative: Path) -> bool:
    """False for what is never imported; licences always stay with what they belong to."""
    if any(word in relative.name.lower() for word in _LICENSE_WORDS):
        return True
    if any(part in _DROPPED_DIRS or part.endswith(".dist-info") for part in relative.parts):
        return False
    return relative.suffix not in _DROPPED_SUFFIXES and relative.name != ".lock"


def cache_dir() -> Path:
    """Outside the checkout, so that a fresh clone and a cleaned tree find it again."""
    base = os.environ.get("XDG_CACHE_HOME")
    if base:
        return Path(base) / "wcp360-bundle"
    return Path("/var/cache/wcp360-bundle") if os.geteuid() == 0 else Path.home() / ".cache/wcp360-bundle"


def ensure_libraries(python_version: str, architecture: str) -> Path:
    """The unpacked wheels of the lock file for one Python; from the cache when it has them.

    Changes: the cache folder. Reads: the package index that the machine's own pip or uv settings name.
    """
    key = hashlib.sha256(LOCK_FILE.read_bytes() + f"{python_version} {PLATFORMS[architecture]}".encode()).hexdigest()
    target = cache_dir() / f"libraries-{key[:24]}"
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=".new-", dir=target.parent))
    try:
        install_wheels(staging, python_version, architecture)
        try:
            staging.rename(target)
        except OSError:
            if not target.is_dir():  # else another build was quicker, with the same content
                raise
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def install_wheels(target: Path, python_version: str, architecture: str) -> None:
    """Unpack exactly what the lock file names, by its hashes, and nothing that would have to be compiled."""
    uv = find_uv()
    common = ["--target", str(target), "--python-version", python_version, "--no-deps", "--require-hashes"]
    if uv is not None:
        platform = ["--python-platform", PLATFORMS[architecture], "--only-binary", ":all:"]
        argv = [uv, "pip", "install", "--quiet", *common, *platform, "-r", str(LOCK_FILE)]
    else:
        platform = ["--platform", f"manylinux_2_28_{architecture}", "--platform", f"manylinux2014_{architecture}"]
        platform += ["--only-binary=:all:", "--implementation", "cp"]
        argv = [sys.executable, "-m", "pip", "install", "--quiet", *common, *platform, "-r", str(LOCK_FILE)]
    subprocess.run(argv, check=True, timeout=INSTALL_SECONDS, stdin=subprocess.DEVNULL)


def find_uv() -> str | None:
    """The uv beside this Python (a virtual environment made by `make setup`), or on the PATH."""
    beside = Path(sys.executable).with_name("uv")
    return str(beside) if beside.is_file() else shutil.which("uv")


def digest_content(content: Content) -> str:
    """SHA-256 in hex over paths, modes and bytes: the same for the same content, whenever and wherever it was built."""
    digest = hashlib.sha256()
    for name in sorted(content):
        data, mode = content[name]
        digest.update(f"{name}\0{mode:o}\0{len(data)}\0".encode())
        digest.update(data)
    return digest.hexdigest()


def ensure_archive(content: Content) -> bytes:
    """The packed content, from the cache when this very content was packed before; old archives make room.

    Changes: the cache folder.
    """
    path = cache_dir() / f"archive-{digest_content(content)[:24]}.tar.gz"
    if path.is_file():
        return path.read_bytes()
    archive = pack(content)
    write_whole(path, archive)
    archives = sorted(path.parent.glob("archive-*.tar.gz"), key=lambda file: file.stat().st_mtime, reverse=True)
    for old in archives[KEPT_ARCHIVES:]:
        old.unlink(missing_ok=True)
    return archive


def pack(content: Content) -> bytes:
    """A gzipped tar with a fixed order, no times and no owners."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(content):
            data, mode = content[name]
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.mtime = len(data), mode, 0
            archive.addfile(member, io.BytesIO(data))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0, compresslevel=6, filename="") as file:
        file.write(plain.getvalue())
    return packed.getvalue()


def write_whole(path: Path, data: bytes) -> None:
    """Write beside and rename: a controller that serves the file meanwhile sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.write_bytes(data)
    temporary.replace(path)


if __name__ == "__main__":
    sys.exit(main())
