"""Old workers: who still accepts, by what /proc says."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.system.handover import list_accepting_workers, wait_for_handover

MAIN = 100


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / str(MAIN) / "task" / str(MAIN)).mkdir(parents=True)
    return tmp_path


def children(proc: Path, **titles: bytes) -> None:
    for name, title in titles.items():
        folder = proc / name.removeprefix("p")
        folder.mkdir(exist_ok=True)
        (folder / "cmdline").write_bytes(title)
    names = " ".join(name.removeprefix("p") for name in titles)
    (proc / str(MAIN) / "task" / str(MAIN) / "children").write_text(names + " ")


def test_workers_when_some_are_ending_only_the_others_accept(proc: Path) -> None:
    children(
        proc,
        p1=b"nginx: worker process\0\0\0\0",
        p2=b"nginx: worker process is shutting down\0",
        p3=b"nginx: cache manager process\0",
        p4=b"php-fpm: pool alice\0",
    )

    assert list_accepting_workers(MAIN, proc) == {1}


def test_workers_when_the_process_is_gone_are_none(proc: Path) -> None:
    assert list_accepting_workers(999, proc) == frozenset()


async def test_handover_when_only_new_workers_accept_returns_at_once(proc: Path) -> None:
    children(proc, p1=b"nginx: worker process is shutting down\0", p5=b"nginx: worker process\0")

    await wait_for_handover(MAIN, frozenset({1}), proc=proc)

    assert list_accepting_workers(MAIN, proc) == {5}
