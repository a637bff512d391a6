"""`make bench` cannot rot: its smallest run goes through the whole machinery."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.__main__ import run_apart
from tests.bench.framework import Benchmark, Measurement, Options
from tests.bench.roundtrip import BENCHMARK, ONE

ROOT = Path(__file__).resolve().parents[3]
SECONDS = 200


@pytest.mark.timeout(240)
def test_bench_when_quick_measures_a_round_trip_and_keeps_nothing() -> None:
    latest = ROOT / "tests" / "bench" / "results" / "latest.json"
    before = latest.read_bytes() if latest.exists() else b""

    argv = [sys.executable, "-m", "tests.bench", "roundtrip", "--quick"]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)

    line = next(line for line in done.stdout.splitlines() if line.startswith(ONE))
    assert " ms " in line, done.stdout + done.stderr
    assert (latest.read_bytes() if latest.exists() else b"") == before


def test_bench_when_one_fails_says_why_in_its_rows() -> None:
    def refuse(_options: Options) -> list[Measurement]:
        raise AssertionError("runs in a process of its own")

    unknown = Benchmark(name="no-such-benchmark", bars=BENCHMARK.bars, run=refuse, limit_seconds=30)

    rows = run_apart(unknown, is_quick=True)

    assert [row.name for row in rows] == [name for name, _ in BENCHMARK.bars]
    assert not any(row.met for row in rows)
    assert all("there is no benchmark" in row.note for row in rows)


def test_bench_when_the_time_is_over_ends_what_it_started() -> None:
    hasty = Benchmark(name=BENCHMARK.name, bars=BENCHMARK.bars, run=BENCHMARK.run, limit_seconds=0.5)

    rows = run_apart(hasty, is_quick=True)

    assert all("it was not done within" in row.note for row in rows)
