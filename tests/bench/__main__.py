"""`python -m tests.bench [NAME...] [--quick]`: run the benchmarks, print one table, keep it.

Each benchmark is a process of its own with a time limit: one that hangs or fails leaves its rows as not met, with the
reason, and the others run. Rows of benchmarks that are not named stay as they were measured last.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

import msgspec
import psutil

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "packaging" / "quickstart"), str(ROOT / "packaging" / "lab")]

from tests.bench import audit, bench_api, metrics, node, report, roundtrip, sessions, size, throughput  # noqa: E402 - needs the two folders
from tests.bench.framework import Benchmark, Measurement, Options, failed  # noqa: E402 - as above

BENCHMARKS: tuple[Benchmark, ...] = (
    roundtrip.BENCHMARK,
    throughput.BENCHMARK,
    sessions.BENCHMARK,
    *node.BENCHMARKS,
    metrics.BENCHMARK,
    audit.BENCHMARK,
    bench_api.BENCHMARK,
    size.BENCHMARK,
)
GRACE_SECONDS = 90.0
LOG_TAIL = 600


def main(argv: Sequence[str] | None = None) -> int:
    """Run; the exit code says whether every bar was met."""
    arguments = _parse(argv)
    chosen = [one for one in BENCHMARKS if not arguments.names or one.name in arguments.names]
    if arguments.child is not None:
        return _run_child(chosen[0], arguments.child, is_quick=arguments.quick)
    fresh: list[Measurement] = []
    for benchmark in chosen:
        began = time.monotonic()
        rows = run_apart(benchmark, is_quick=arguments.quick)
        fresh += rows
        sys.stderr.write(f"{benchmark.name}: {time.monotonic() - began:.0f} s\n{report.render_table(rows)}\n\n")
    order = [name for benchmark in BENCHMARKS for name, _ in benchmark.bars]
    if arguments.quick:
        table = fresh
    else:
        table = report.merge_rows(report.read_results(), fresh, order)
        report.write_results(table)
        report.write_document(table)
    sys.stdout.write(report.render_table(table) + "\n")
    return 0 if all(row.met for row in fresh) else 1


def _parse(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [benchmark.name for benchmark in BENCHMARKS]
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(names)}")
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help="the same as NAME")
    parser.add_argument("--quick", action="store_true", help="does it work? tiny numbers, no Salt, nothing is kept")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    arguments.names += arguments.only
    unknown = set(arguments.names) - set(names)
    if unknown:
        parser.error(f"there is no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    return arguments


def run_apart(benchmark: Benchmark, *, is_quick: bool) -> list[Measurement]:
    """Run one benchmark in a process of its own; its rows, or rows that say why there are none."""
    if benchmark.needs_root and os.geteuid() != 0:
        return _failed(benchmark, "it needs root")
    with tempfile.TemporaryDirectory(prefix="wcp360-bench-") as folder:
        out, log_path = Path(folder) / "rows.json", Path(folder) / "log"
        argv = [sys.executable, "-m", "tests.bench", benchmark.name, "--child", str(out)]
        with log_path.open("wb") as log:
            process = subprocess.Popen(
                [*argv, *(["--quick"] if is_quick else [])], cwd=ROOT, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
            reason = _wait(process, benchmark.limit_seconds)
        if reason or not out.exists():
            tail = log_path.read_text(errors="replace").strip()[-LOG_TAIL:]
            return _failed(benchmark, reason or f"it failed: {tail}")
        return msgspec.json.decode(out.read_bytes(), type=list[Measurement])


def _failed(benchmark: Benchmark, reason: str) -> list[Measurement]:
    sentence = " ".join(reason.split())
    return [failed(name, bar, sentence) for name, bar in benchmark.bars]


def _wait(process: subprocess.Popen[bytes], limit_seconds: float) -> str:
    """Wait for the end; empty, or why it was ended. Nothing that it started is left behind."""
    try:
        process.wait(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        family = _family_of(process)
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=GRACE_SECONDS)
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()  # psutil compares the start time, so a number that was given anew is left alone
        process.wait()
        return f"it was not done within {limit_seconds:.0f} s"
    return ""


def _family_of(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        return [*parent.children(recursive=True), parent]
    return []


def _run_child(benchmark: Benchmark, out: Path, *, is_quick: bool) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # ends in order: every block cleans up after itself
    with tempfile.TemporaryDirectory(prefix="wcb", dir="/tmp") as folder:  # a socket's path has at most 107 bytes
        try:
            rows = benchmark.run(Options(is_quick=is_quick, work_dir=Path(folder)))
        except Exception:  # noqa: BLE001 - a boundary: whatever went wrong is a row of the table
            sys.stderr.write(traceback.format_exc())
            return 1
    out.write_bytes(msgspec.json.encode(rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())
