from __future__ import annotations

from pathlib import Path

from agent.contract.actions import PublishConfig, ReloadSystemd, RemoveFile, WriteFile
from agent.system.diffs import diff_of


def test_diff_when_file_changes_shows_lines_with_the_path(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    path.write_text("one\ntwo\n")

    diff = diff_of(WriteFile(path=str(path), content="one\n2\n", reason="r"))

    assert diff.splitlines()[:2] == [f"--- {path}", f"+++ {path}"]
    assert "-two" in diff
    assert "+2" in diff


def test_diff_when_file_is_private_does_not_show_it(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old-secret")
    path.chmod(0o600)

    written = diff_of(WriteFile(path=str(path), content="new-secret", mode=0o600, reason="r"))
    removed = diff_of(RemoveFile(path=str(path), reason="r"))

    assert written
    assert removed
    assert "secret\n" not in (written + removed).replace(str(path), "")


def test_diff_when_nothing_changes_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("same")

    assert diff_of(WriteFile(path=str(path), content="same", reason="r")) == ""
    assert diff_of(RemoveFile(path=str(tmp_path / "none"), reason="r")) == ""
    assert diff_of(ReloadSystemd(reason="r")) == ""


def test_diff_when_publishing_shows_new_and_removed_files(tmp_path: Path) -> None:
    old = tmp_path / "old.conf"
    old.write_text("x\n")
    new = WriteFile(path=str(tmp_path / "new.conf"), content="y\n", reason="r")

    diff = diff_of(PublishConfig(tree="t", files=(new,), removals=(str(old),), reason="r"))

    assert f"--- /dev/null\n+++ {new.path}" in diff
    assert f"--- {old}\n+++ /dev/null" in diff


def test_diff_when_whole_shows_the_file_around_the_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.conf"
    lines = [f"line {number}" for number in range(20)]
    path.write_text("\n".join([*lines, "by hand"]) + "\n")
    action = WriteFile(path=str(path), content="\n".join(lines) + "\n", reason="r")

    assert diff_of(action).splitlines()[2:] == ["@@ -18,4 +18,3 @@", *(f" {line}" for line in lines[-3:]), "-by hand"]
    whole = diff_of(action, is_whole=True).splitlines()
    assert whole[2:] == ["@@ -1,21 +1,20 @@", *(f" {line}" for line in lines), "-by hand"]
