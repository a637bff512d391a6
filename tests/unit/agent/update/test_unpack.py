"""Nothing of a bundle lies outside of its folder, whatever the archive says."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from agent.update.unpack import unpack_bundle
from shared.errors import InvalidInputError
from tests.faults.update_bench import make_bundle, pack

BUILD = "1.1.0-bbbbbbbbbbbb"


def write(tmp_path: Path, data: bytes) -> Path:
    path = tmp_path / "bundle.tar.gz"
    path.write_bytes(data)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, **values: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type = kind
    for field, value in values.items():
        setattr(made, field, value)
    return made


def test_bundle_when_it_is_ours_is_unpacked_with_plain_modes(tmp_path: Path) -> None:
    members = {"bin/wcp-agent": member("bin/wcp-agent", mode=0o4777), "agent/x.py": member("agent/x.py", mode=0o666)}
    archive = write(tmp_path, pack(members, {"bin/wcp-agent": b"#!", "agent/x.py": b"1"}))

    unpack_bundle(archive, tmp_path / "tree")

    assert (tmp_path / "tree/bin/wcp-agent").stat().st_mode & 0o7777 == 0o755
    assert (tmp_path / "tree/agent/x.py").stat().st_mode & 0o7777 == 0o644


@pytest.mark.parametrize(
    "bad",
    [
        member("/etc/passwd"),
        member("../escape"),
        member("agent/../../escape"),
        member("agent/.."),
        member("etc/passwd"),
        member(""),
        member("agent/link", tarfile.SYMTYPE, linkname="/etc"),
        member("agent/link", tarfile.LNKTYPE, linkname="bundle.json"),
        member("agent/device", tarfile.CHRTYPE),
        member("agent/pipe", tarfile.FIFOTYPE),
    ],
    ids=lambda bad: f"{bad.name or 'empty'}-{bad.type.decode()}",
)
def test_bundle_when_a_member_leads_out_is_refused(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    archive = write(tmp_path, pack({bad.name: bad}, {}))

    with pytest.raises(InvalidInputError):
        unpack_bundle(archive, tmp_path / "tree")

    assert not (tmp_path / "escape").exists()


def test_bundle_when_a_link_stands_where_a_file_comes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    link = member("agent", tarfile.SYMTYPE, linkname=str(tmp_path / "outside"))
    archive = write(tmp_path, pack({"agent": link, "agent/x.py": member("agent/x.py")}, {"agent/x.py": b"1"}))

    with pytest.raises(InvalidInputError):
        unpack_bundle(archive, tmp_path / "tree")

    assert list((tmp_path / "outside").iterdir()) == []


def test_bundle_when_the_same_file_comes_twice_is_refused(tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w:gz") as archive:
        for content in (b"1", b"2"):
            made = member("agent/x.py", size=1)
            archive.addfile(made, io.BytesIO(content))

    with pytest.raises(InvalidInputError):
        unpack_bundle(write(tmp_path, plain.getvalue()), tmp_path / "tree")


@pytest.mark.parametrize("cut", [0, 10, 200], ids=["empty", "header", "middle"])
def test_bundle_when_it_is_cut_or_garbage_is_refused(tmp_path: Path, cut: int) -> None:
    with pytest.raises(InvalidInputError):
        unpack_bundle(write(tmp_path, make_bundle(BUILD, "1.1.0")[:cut]), tmp_path / "tree")
    with pytest.raises(InvalidInputError):
        unpack_bundle(write(tmp_path, b"\x00garbage" * 100), tmp_path / "tree")


def test_bundle_when_it_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.update.unpack.MAX_UNPACKED_BYTES", 100)

    with pytest.raises(InvalidInputError, match="more than any bundle"):
        unpack_bundle(write(tmp_path, make_bundle(BUILD, "1.1.0")), tmp_path / "tree")
