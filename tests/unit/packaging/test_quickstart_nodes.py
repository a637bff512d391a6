from __future__ import annotations

from pathlib import Path

import pytest
from nodes import LAB, RealNodes
from say import QuickstartError
from wcplab import state
from wcplab.state import LabDefinition


@pytest.fixture
def lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabDefinition:
    """A lab without nodes, which nothing has to boot."""
    monkeypatch.setenv("WCP_LAB_STATE", str(tmp_path / "labs"))
    definition = LabDefinition(LAB, 7, ())
    state.write(definition)
    return definition


def own(run_dir: Path) -> None:
    run_dir.mkdir(parents=True)
    (state.lab_directory(LAB) / "owner").write_text(f"{run_dir}\n")


def test_nodes_of_another_clone_are_neither_used_nor_ended_and_the_way_out_is_said(
    tmp_path: Path, lab: LabDefinition
) -> None:
    own(tmp_path / "first" / f".{LAB}")
    ours = RealNodes(tmp_path / "second" / f".{LAB}")

    with pytest.raises(QuickstartError, match=f"those of another clone, {tmp_path}/first") as raised:
        ours.prepare()
    ours.stop()
    ours.remove()

    assert f"make -C {tmp_path}/first clean" in raised.value.hint
    assert "WCP360_RUN_NAME=second" in raised.value.hint
    assert state.find(LAB) == lab
    assert not (tmp_path / "second").exists()


def test_nodes_of_a_clone_that_is_gone_may_be_removed(tmp_path: Path, lab: LabDefinition) -> None:
    own(tmp_path / "first" / f".{LAB}")
    (tmp_path / "first" / f".{LAB}").rmdir()

    RealNodes(tmp_path / "second" / f".{LAB}").remove()

    assert state.find(LAB) is None
