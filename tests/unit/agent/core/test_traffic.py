"""Counting traffic: each line once, through rotation, packing, copying, torn lines, crashes and hostile contents."""

from __future__ import annotations

import gzip
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import booleans, integers, sampled_from

from agent.core.traffic import TrafficTerms, count_traffic
from agent.core.traffic_store import FILE_NAME

NOVEMBER = 1_795_000_000.0
"""2026-11-18, in seconds since the epoch."""
DAY = 86_400.0


def line(at: float, sent: int, received: int, *, agent: str = "curl") -> bytes:
    return f'::1 - - [x] "GET / HTTP/1.1" 200 5 "-" "{agent}" 0.003 a.test {at:.3f} {sent} {received}\n'.encode()


class Node:
    """A folder of logs and what was counted of it."""

    def __init__(self, root: Path) -> None:
        self.state, self.logs = root / "state", root / "logs"
        self.folder = self.logs / "ada"
        self.now = NOVEMBER
        self.accounts = [("ada", 20_001)]
        for folder in (self.state, self.folder):
            folder.mkdir(parents=True)

    def path(self, suffix: str = "") -> Path:
        return self.folder / f"a.test.access.log{suffix}"

    def write(self, *sizes: int, suffix: str = "") -> None:
        self.now += 1
        with self.path(suffix).open("ab") as log:
            for size in sizes:
                log.write(line(self.now, size, 0))

    def count(self, *, piece_bytes: int = 4096, round_seconds: float = 30.0) -> dict[str, int]:
        """Account and month to bytes."""
        self.now += 1
        terms = TrafficTerms(
            state_dir=self.state, logs_dir=self.logs, now=lambda: self.now, piece_bytes=piece_bytes,
            round_seconds=round_seconds,
        )  # fmt: skip
        found = count_traffic(terms, self.accounts)
        return {f"{use.account} {use.month}": use.traffic_bytes for use in found}

    def total(self) -> int:
        return sum(self.count().values())

    def rotate(self) -> None:
        """As logrotate: numbers go up, the third is packed."""
        for number in range(14, 1, -1):
            packed = self.path(f".{number}.gz")
            if packed.exists():
                packed.rename(self.path(f".{number + 1}.gz"))
        if self.path(".1").exists():
            self.pack(".1", ".2.gz")
        self.path().rename(self.path(".1"))
        self.path().touch()

    def pack(self, source: str, target: str) -> None:
        status = self.path(source).stat()
        self.path(target).write_bytes(gzip.compress(self.path(source).read_bytes()))
        self.path(source).unlink()
        os.utime(self.path(target), ns=(status.st_atime_ns, status.st_mtime_ns))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    found = Node(tmp_path)
    found.count()
    return found


def test_traffic_when_lines_come_between_rounds_is_added_up(node: Node) -> None:
    node.write(100, 20)
    first = node.count()
    node.write(3)

    assert (first, node.count(), node.count()) == ({"ada 202611": 120}, {"ada 202611": 123}, {"ada 202611": 123})


def test_traffic_counts_answers_and_requests(node: Node) -> None:
    node.path().write_bytes(line(node.now + 1, 1000, 70))

    assert node.total() == 1070


def test_traffic_when_the_last_line_is_torn_waits_for_its_rest(node: Node) -> None:
    whole = line(node.now + 1, 1234, 0)
    node.path().write_bytes(whole[:-3])
    torn = node.total()
    with node.path().open("ab") as log:
        log.write(whole[-3:])

    assert (torn, node.total()) == (0, 1234)


def test_traffic_when_rotated_files_were_not_read_yet_counts_them(node: Node) -> None:
    node.write(1)
    node.count()
    for size in (10, 100, 1000):
        node.write(size)
        node.rotate()
    node.write(10_000)

    assert node.path(".3.gz").exists()
    assert (node.total(), node.total()) == (11_111, 11_111)


def test_traffic_when_the_old_server_still_writes_into_the_rotated_file_is_counted(node: Node) -> None:
    node.write(1)
    node.rotate()
    node.write(10)
    node.count()

    node.write(100, suffix=".1")

    assert node.total() == 111


def test_traffic_when_a_log_is_emptied_goes_on_from_its_begin(node: Node) -> None:
    node.write(100, 200)
    node.count()

    node.path().write_bytes(b"")
    node.write(5)

    assert node.total() == 305


def test_traffic_when_a_log_is_copied_and_emptied_counts_what_was_unread(node: Node) -> None:
    node.write(100)
    node.count()
    node.write(10)

    shutil.copy2(node.path(), node.path(".1"))
    between = node.total()
    os.truncate(node.path(), 0)
    node.write(1)

    assert (between, node.total()) == (110, 111)


def test_traffic_when_a_packed_file_is_half_written_is_counted_once_it_is_whole(node: Node) -> None:
    node.write(*range(1, 400))
    expected = node.total()
    node.rotate()
    node.write(7)
    packed = gzip.compress(node.path(".1").read_bytes())
    node.path(".2.gz").write_bytes(packed[: len(packed) // 2])
    between = node.total()
    node.path(".2.gz").write_bytes(packed)
    node.path(".1").unlink()

    assert (between, node.total()) == (expected + 7, expected + 7)


def test_traffic_when_an_inode_is_given_to_another_file_counts_that_file(node: Node) -> None:
    node.write(1000)
    node.count()
    inode = node.path().stat().st_ino
    at = sqlite3.connect(node.state / FILE_NAME)
    node.rotate()
    node.write(5)
    # What the file system may do any time: the mark's inode is the new file's.
    at.execute("UPDATE marks SET inode = ? WHERE inode = ?", (node.path().stat().st_ino, inode))
    at.commit()
    at.close()

    assert node.total() == 1005


def test_traffic_when_lines_are_hostile_counts_what_nginx_wrote_at_their_end(node: Node) -> None:
    at = node.now + 1
    node.path().write_bytes(
        line(at, 10, 0, agent=f"x {at:.3f} 999999 999999")
        + line(at, 20, 0, agent="\\x22\\x0a 1 1")
        + b"\x00\xff\xfe garbage without an end of ours\n"
        + b'::1 - - [x] "GET /" 200 5 "-" "old format" 0.003 a.test\n'
        + f"{at:.3f} -5 7\n".encode()
        + f" {at:.3f} 99999999999999999 7\n".encode()
        + f" {at:.3f} 9999999999999999 7\n".encode()
        + b"\n\n"
        + line(at, 300, 0)
    )

    assert node.total() == 330


def test_traffic_when_a_line_is_longer_than_a_piece_counts_it_once(node: Node) -> None:
    node.path().write_bytes(line(node.now + 1, 40, 2, agent="x" * 50_000) + line(node.now + 1, 7, 0))

    assert node.count(piece_bytes=256) == {"ada 202611": 49}


def test_traffic_when_a_round_has_no_time_goes_on_in_the_next(node: Node) -> None:
    node.write(*([1] * 1000))

    rounds = [sum(node.count(round_seconds=0.0).values()) for _ in range(40)]

    assert rounds == sorted(rounds)
    assert rounds[0] < 1000
    assert rounds[-1] == 1000


def test_traffic_of_the_month_before_stays_its_own(node: Node) -> None:
    end_of_november = 1_796_083_199.0
    node.now = end_of_november
    node.path().write_bytes(line(end_of_november + 0.5, 100, 0) + line(end_of_november + 1.5, 20, 0))
    node.now += 60

    first = node.count()
    node.now += 20 * DAY
    node.write(3)

    assert first == {"ada 202611": 100, "ada 202612": 20}
    assert node.count() == {"ada 202611": 100, "ada 202612": 23}


def test_traffic_when_the_month_is_long_over_is_forgotten(node: Node) -> None:
    node.write(100)
    node.count()
    node.now += 45 * DAY  # January

    assert node.count() == {}


def test_traffic_when_the_clock_was_wrong_counts_in_this_month(node: Node) -> None:
    node.write(1)
    node.count()
    with node.path().open("ab") as log:
        log.write(line(5.0, 10, 0) + line(NOVEMBER * 2, 100, 0))

    assert node.count() == {"ada 202611": 111}


def test_traffic_when_the_counts_are_lost_begins_anew_and_counts_nothing_twice(node: Node) -> None:
    node.write(100)
    node.count()
    (node.state / FILE_NAME).write_bytes(b"no database at all" * 500)
    for suffix in ("-wal", "-shm"):
        (node.state / f"{FILE_NAME}{suffix}").unlink(missing_ok=True)

    anew = node.total()
    node.now += 1
    node.write(5)

    assert (anew, node.total()) == (0, 5)


def test_traffic_of_an_account_that_was_made_anew_begins_at_nothing(node: Node) -> None:
    node.write(100)
    node.count()
    sources = sources_of(node)

    node.accounts = []
    gone = node.count()
    shutil.rmtree(node.folder)
    node.folder.mkdir()
    node.accounts = [("ada", 20_002)]
    node.write(3)

    assert (gone, node.count()) == ({}, {"ada 202611": 3})
    assert sources_of(node) != sources


def sources_of(node: Node) -> set[str]:
    connection = sqlite3.connect(node.state / FILE_NAME)
    found = {row[0] for row in connection.execute("SELECT source FROM accounts")}
    connection.close()
    return found


COUNTS_UNTIL_KILLED = """
import sys
from pathlib import Path
from agent.core.traffic import TrafficTerms, count_traffic
state, logs, now = sys.argv[1:]
print("counting", flush=True)
for _ in range(1000):
    terms = TrafficTerms(state_dir=Path(state), logs_dir=Path(logs), now=lambda: float(now), piece_bytes=300, round_seconds=0.01)
    count_traffic(terms, [("ada", 20_001)])
    print("a round", flush=True)
"""


@pytest.mark.parametrize("rounds", [0, 1, 5, 20])
def test_traffic_when_whoever_counts_is_killed_is_counted_once_by_the_next(node: Node, rounds: int) -> None:
    node.write(*range(20_000))
    argv = [sys.executable, "-c", COUNTS_UNTIL_KILLED, str(node.state), str(node.logs), str(node.now)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        for _ in range(rounds + 1):
            child.stdout.readline()
        child.kill()

    assert node.total() == sum(range(20_000))


def test_traffic_when_a_name_is_a_link_or_a_pipe_is_not_read(node: Node, tmp_path: Path) -> None:
    (tmp_path / "foreign").write_bytes(line(node.now + 1, 1000, 0))
    (node.folder / "b.test.access.log").symlink_to(tmp_path / "foreign")
    os.mkfifo(node.folder / "c.test.access.log")
    (node.folder / "d.test.error.log").write_bytes(line(node.now + 1, 1000, 0))
    node.write(5)

    assert node.total() == 5


class Rotations(RuleBasedStateMachine):
    """Whatever happens to the files between rounds, what is counted is what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.root = Path(tempfile.mkdtemp(prefix="traffic-"))
        self.node = Node(self.root)
        self.node.count()
        self.written = 0
        self.counted = 0

    def teardown(self) -> None:
        shutil.rmtree(self.root)

    @rule(size=integers(0, 10_000), is_late=booleans(), times=integers(1, 30))
    def serve(self, size: int, is_late: bool, times: int) -> None:
        suffix = ".1" if is_late and self.node.path(".1").exists() else ""
        self.node.write(*([size] * times), suffix=suffix)
        self.written += size * times

    @precondition(lambda self: self.node.path().exists() and self.node.path().stat().st_size > 0)
    @rule()
    def rotate(self) -> None:
        if not self.node.path(".12.gz").exists():
            self.node.rotate()

    @precondition(lambda self: self.node.path(".1").exists())
    @rule()
    def pack(self) -> None:
        if not self.node.path(".2.gz").exists():
            self.node.pack(".1", ".2.gz")

    @rule(piece_bytes=sampled_from((200, 777, 65_536)), has_time=booleans())
    def count(self, piece_bytes: int, has_time: bool) -> None:
        found = self.node.count(piece_bytes=piece_bytes, round_seconds=30.0 if has_time else 0.0)
        assert self.counted <= sum(found.values()) <= self.written
        self.counted = sum(found.values())

    @invariant()
    def everything_is_counted_in_the_end(self) -> None:
        copy = Path(tempfile.mkdtemp(prefix="traffic-"))
        shutil.rmtree(copy)
        try:
            found = self._count_copy(copy)
        finally:
            shutil.rmtree(copy)
        assert found == self.written

    def _count_copy(self, copy: Path) -> int:
        """Only the counts are copied: the files have the inodes that they have."""
        state = self.node.state
        shutil.copytree(state, copy)
        try:
            self.node.state = copy
            return self.node.total()
        finally:
            self.node.state = state


RotationsTest = Rotations.TestCase
RotationsTest.settings = settings(
    max_examples=40, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
