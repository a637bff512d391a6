"""Faults 4 and 5 on a disk that forgets: whatever was not synchronised when the power went is lost, or half there."""

from __future__ import annotations

import random
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.protocol.job import JobState
from tests.faults.dying import die_at, run_job, start_again
from tests.faults.lost_writes import Disk, Player, read_calls, record
from tests.faults.lost_writes_child import ACKNOWLEDGED, FINISHED, JOB_ID, the_job
from tests.faults.node_files_host import FilesHost
from tests.faults.test_node_files import SCENARIOS, is_without_rest, only_recover, open_bench, prepare

ROOT = Path(__file__).resolve().parents[2]
RANDOM_EVERY = 4
"""So often something of what is not safe is there all the same; all of it is lost after every call."""
FREQUENT, FREQUENT_EVERY = ("pwrite64", "write"), 4
"""Most calls are pages of the journal; the moments in between are the same disk once more."""
AGAIN_EVERY = 5
"""So often the job is run again to its end afterwards."""
needs_strace = pytest.mark.skipif(shutil.which("strace") is None, reason="there is no strace on this machine")


@pytest.fixture
def base() -> Iterator[Path]:
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="wcp-lost-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@needs_strace
@pytest.mark.timeout(400)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fault_04_disk_when_it_forgets_what_was_not_synchronised_has_the_old_or_the_new(
    base: Path, scenario: str
) -> None:
    """After every call that changes anything: lose all that is not safe, now and then only some of it."""
    node = base / "node"
    prepare(node, SCENARIOS[scenario][0])
    # The journal is made at the node's installation, not with its first job.
    assert die_at(None, lambda: open_bench(node), start_again) == 0
    was = FilesHost(node).snapshot()
    disk = Disk.of(node)
    record([sys.executable, "-m", "tests.faults.lost_writes_child", str(node), scenario], base / "trace", cwd=ROOT)
    after = FilesHost(node).snapshot()
    player = Player(disk, node)

    moments = 0
    for call in read_calls(base / "trace"):
        if not player.play(*call):
            continue
        moments += 1
        if call[0] in FREQUENT and moments % FREQUENT_EVERY:
            continue
        for choice in (None, random.Random(moments)) if moments % RANDOM_EVERY == 0 else (None,):
            disk.lose(node, choice)
            moment = f"after call {moments} ({call[0]}), {'some' if choice else 'all'} of it lost"
            is_over = check(node, moment, (was, after), player.said)
            if not is_over and moments % AGAIN_EVERY == 0:
                require_end(node, scenario, moment, after)

    assert moments > 20
    assert player.said == ACKNOWLEDGED + FINISHED


def check(node: Path, moment: str, states: tuple[object, object], said: bytes) -> bool:
    """Recover, and judge what is there against what was promised by then; whether the job is over."""
    was, after = states
    assert die_at(None, lambda: open_bench(node), only_recover) == 0, moment
    bench = open_bench(node)
    row = bench.journal.find_job(JOB_ID)
    assert ACKNOWLEDGED not in said or row is not None, f"{moment}: an acknowledged job is forgotten"
    assert FINISHED not in said or (row is not None and row.result is not None), f"{moment}: a result is forgotten"
    assert not bench.journal.quarantine, f"{moment}: {bench.journal.quarantine}"
    assert bench.journal.database.set_aside is None, f"{moment}: the journal is damaged"
    bench.journal.close()
    is_over = row is not None and row.state.is_final
    found = FilesHost(node).snapshot()
    assert found == (after if is_over else was), f"{moment}: {different(found, after if is_over else was)}"
    assert is_without_rest(node), moment
    return is_over


def require_end(node: Path, scenario: str, moment: str, after: object) -> None:
    """Offered again, the job comes to its end."""
    assert die_at(None, lambda: open_bench(node), run_job(the_job(scenario))) == 0
    assert FilesHost(node).snapshot() == after, moment
    assert open_bench(node).journal.find_job(JOB_ID).state in {JobState.SUCCEEDED, JobState.FAILED}


def different(found: object, wanted: object) -> list[str]:
    assert isinstance(found, dict)
    assert isinstance(wanted, dict)
    return sorted(name for name in found.keys() | wanted.keys() if found.get(name) != wanted.get(name))
