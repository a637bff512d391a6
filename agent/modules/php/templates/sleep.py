# ruff: noqa: INP001 (a program that is installed on its own, not a package)
"""Put idle PHP masters to sleep, and open sockets again that a rate limit had closed. Run by wcp-php-sleep.timer.

Managed by WCP360. Standard library only; run with `python3 -I -S`.

A master is idle when it is alone in its cgroup: PHP-FPM keeps each child for the pool's own idle time after its last
request (pm = ondemand, pm.process_idle_timeout), so a master without children has had nothing to do for that long. One
that was started a moment ago has had no time to fork, so it must be as old as that, too. No state is kept between runs.
Stopping at the wrong moment harms nobody: a request that a child has taken is finished, one that still waits in the
socket wakes the next master, because the socket belongs to systemd.
"""

from __future__ import annotations

import os
import re
import subprocess  # noqa: TID251 (this file runs on its own, outside the agent)
import sys
import time
from collections.abc import Iterator
from pathlib import Path

CONFIG_DIR = Path("/etc/wcp360/php")
PROC = Path("/proc")
CGROUP_ROOTS = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/systemd"), Path("/sys/fs/cgroup/unified"))
"""Where systemd's own hierarchy is: cgroup v2, v1, and both mixed. Source: systemd, docs/CGROUP_DELEGATION.md."""
SERVICE = re.compile(r"wcp-php(?P<version>[0-9]\.[0-9])@(?P<uid>[0-9]{1,10})\.service")
IDLE_LINE = re.compile(r"^pm\.process_idle_timeout = ([0-9]+)s$", re.MULTILINE)
SYSTEMCTL_TIMEOUT_SECONDS = 30


def find_services(roots: tuple[Path, ...] = CGROUP_ROOTS) -> Iterator[Path]:
    """Cgroup folders of the PHP services that run."""
    seen: set[str] = set()
    for root in roots:
        for folder in root.glob("user.slice/user-*.slice/wcp-php*@*.service"):
            if SERVICE.fullmatch(folder.name) and folder.name not in seen:
                seen.add(folder.name)
                yield folder


def read_idle_seconds(unit: str, config_dir: Path = CONFIG_DIR) -> float | None:
    """The pool's own idle time; None when it has no configuration any more."""
    match = SERVICE.fullmatch(unit)
    if match is None:
        return None
    try:
        text = (config_dir / match["version"] / f"{match['uid']}.conf").read_text(encoding="utf-8")
    except OSError:
        return None
    line = IDLE_LINE.search(text)
    return float(line.group(1)) if line else None


def read_age_seconds(pid: int, proc: Path = PROC) -> float | None:
    """How long ago the process started; None when it is gone."""
    try:
        # The name of the program stands in brackets and may hold anything, brackets and spaces included.
        fields = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    # starttime, field 22, in clock ticks since boot. Source: proc(5).
    return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")


def is_idle(folder: Path) -> bool:
    """Whether the master is alone and old enough."""
    try:
        pids = [int(line) for line in (folder / "cgroup.procs").read_text(encoding="ascii").split()]
    except OSError:
        return False
    idle_seconds = read_idle_seconds(folder.name)
    if len(pids) != 1 or idle_seconds is None:
        return False
    age_seconds = read_age_seconds(pids[0])
    return age_seconds is not None and age_seconds >= idle_seconds


def systemctl(*words: str) -> str:
    completed = subprocess.run(
        ("/usr/bin/systemctl", *words), capture_output=True, text=True, check=False, timeout=SYSTEMCTL_TIMEOUT_SECONDS
    )
    if completed.returncode != 0:
        sys.stderr.write(f"systemctl {' '.join(words[:3])}: {completed.stderr.strip()}\n")
    return completed.stdout


def find_failed_sockets() -> list[str]:
    """Sockets that systemd closed because their master would not start again and again."""
    listing = systemctl("list-units", "--state=failed", "--plain", "--no-legend", "--full", "wcp-php*@*.socket")
    return [line.split()[0] for line in listing.splitlines() if line.strip()]


def main() -> int:
    idle = [folder.name for folder in find_services() if is_idle(folder)]
    if idle:
        systemctl("stop", "--no-block", "--", *idle)
    failed = find_failed_sockets()
    if failed:
        services = [name.removesuffix(".socket") + ".service" for name in failed]
        systemctl("reset-failed", "--", *failed, *services)
        systemctl("start", "--no-block", "--", *failed)
    return 0


if __name__ == "__main__":
    sys.exit(main())
