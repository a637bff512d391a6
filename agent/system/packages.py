"""Debian packages: facts from dpkg and apt, changes by apt-get in a transient unit (the executor has no network).

Services do not start on installation: SYSTEMD_OFFLINE=1 in apt's environment makes every systemctl of a maintainer
script say "ignoring" instead of acting. Unlike a policy-rc.d or a mask it leaves nothing behind, whenever it ends.
Source: systemd, docs/ENVIRONMENT.md, SYSTEMD_OFFLINE.
"""

from __future__ import annotations

import asyncio
import fnmatch
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from agent.system.runner import run
from agent.system.systemd import Systemd, TransientCommand
from shared.errors import FactError, InvalidInputError

QUERY_TIMEOUT_SECONDS: Final = 60.0
INSTALL_TIMEOUT_SECONDS: Final = 1800.0
LOCK_TIMEOUT_SECONDS: Final = 600
"""How long apt waits for another apt (unattended upgrades, an administrator) to end."""
LISTS_FRESH_SECONDS: Final = 24 * 3600
APT_LISTS: Final = Path("/var/lib/apt/lists")

APT_ENVIRONMENT: Final = {
    "DEBIAN_FRONTEND": "noninteractive",
    "APT_LISTCHANGES_FRONTEND": "none",
    "NEEDRESTART_SUSPEND": "1",
    "UCF_FORCE_CONFFOLD": "1",
}
NO_SERVICES: Final = {"SYSTEMD_OFFLINE": "1"}
"""For installations only: a removal has to stop the services it takes away."""

APT_OPTIONS: Final = (
    "--yes",
    "--quiet",
    f"--option=DPkg::Lock::Timeout={LOCK_TIMEOUT_SECONDS}",
    "--option=Dpkg::Options::=--force-confdef",
    "--option=Dpkg::Options::=--force-confold",
    "--option=Dpkg::Use-Pty=0",
    "--option=Acquire::Retries=2",
    "--option=Acquire::http::Timeout=30",
)
# By default apt keeps what some other package merely suggests: an undone installation would leave such things behind.
IGNORE_SUGGESTIONS: Final = "--option=APT::AutoRemove::SuggestsImportant=false"
IGNORE_RECOMMENDATIONS: Final = "--option=APT::AutoRemove::RecommendsImportant=false"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9+.-]{1,100}")
_PATTERN: Final = re.compile(r"[a-z0-9*?\[\]+.-]{1,100}")


def require_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return package names, checked: none can be taken for an option, a version or a removal mark by apt.

    Source: Debian Policy 5.6.1 (names); apt-get(8) (a trailing + or - is a mark, so such a name is refused).

    Raises:
        InvalidInputError: One is not a package's name.
    """
    for name in names:
        if not _NAME.fullmatch(name) or name[-1] in "+-":
            raise InvalidInputError(f"{name[:80]!r} is not a package's name", field="names")
    return tuple(names)


def parse_installed(text: str) -> dict[str, str]:
    """Parse `dpkg-query --show` lines of name, version and status: those that are installed, with their version."""
    rows = (line.split("\t") for line in text.splitlines())
    return {row[0]: row[1] for row in rows if len(row) == 3 and row[2] == "installed"}


def parse_candidates(text: str) -> tuple[str, ...]:
    """Parse `apt-cache policy`: names with a version that could be installed."""
    return tuple(re.findall(r"^(\S+):\n  Installed: .*\n  Candidate: (?!\(none\))", text, re.MULTILINE))


def parse_simulation(text: str, *words: str) -> tuple[str, ...]:
    """Parse `apt-get --simulate`: names on lines that begin with one of these words (Inst, Remv, Purg)."""
    found = re.findall(r"^(\w+) (\S+)(?: |$)", text, re.MULTILINE)
    return tuple(dict.fromkeys(name.partition(":")[0] for word, name in found if word in words))


def parse_new_packages(text: str) -> tuple[str, ...]:
    """Parse `apt-get --simulate install`: new names. An upgrade shows its old version in brackets."""
    return tuple(dict.fromkeys(re.findall(r"^Inst ([^\s:]+)(?::\S+)? \(", text, re.MULTILINE)))


def parse_conffiles(text: str) -> dict[str, str]:
    """Parse `${Conffiles}` of dpkg-query: path to MD5 as shipped; obsolete and removed ones are left out."""
    return dict(re.findall(r"^ (/\S+) ([0-9a-f]{32})$", text, re.MULTILINE))


class Packages:
    """The packages of this node. One change at a time: dpkg's lock would only make the second wait."""

    def __init__(self, systemd: Systemd) -> None:
        self._systemd = systemd
        self._lock = asyncio.Lock()
        self._is_settled = False

    async def installed(self, names: Sequence[str]) -> dict[str, str]:
        """See Probe.packages."""
        if not names:
            return {}
        shown = "${Package}\t${Version}\t${db:Status-Status}\n"
        argv = ("dpkg-query", "--show", f"--showformat={shown}", "--", *require_names(names))
        # Status 1: some name is unknown to dpkg, which is an answer. Source: dpkg-query(1), EXIT STATUS.
        completed = await run(argv, timeout_seconds=QUERY_TIMEOUT_SECONDS, accepted_codes=(0, 1))
        return parse_installed(completed.stdout)

    async def available(self, pattern: str) -> tuple[str, ...]:
        """See Probe.available_packages.

        Raises:
            InvalidInputError: The pattern has other characters than names and globs have.
        """
        if not _PATTERN.fullmatch(pattern):
            raise InvalidInputError(f"{pattern[:80]!r} is not a pattern of package names", field="pattern")
        prefix = re.split(r"[*?\[]", pattern, maxsplit=1)[0]
        listed = await run(("apt-cache", "pkgnames", prefix), timeout_seconds=QUERY_TIMEOUT_SECONDS)
        names = sorted(fnmatch.filter(listed.stdout.split(), pattern))
        return tuple(sorted(await self._with_candidate(names)))

    async def _with_candidate(self, names: Sequence[str]) -> tuple[str, ...]:
        if not names:
            return ()
        argv = ("apt-cache", "policy", *require_names(names))
        shown = await run(argv, timeout_seconds=QUERY_TIMEOUT_SECONDS)
        return parse_candidates(shown.stdout)

    async def plan_installation(self, names: Sequence[str]) -> tuple[str, ...]:
        """Names of all packages that an installation would bring and that are not there now."""
        if not await self._missing(names):
            return ()
        argv = ("apt-get", *APT_OPTIONS, "--simulate", "--no-install-recommends", "install", *require_names(names))
        try:
            simulated = await self._simulate(argv)
        except FactError:
            # Lists too old to know the name; the installation will fetch new ones, and undo removes what was asked for.
            return ()
        return parse_new_packages(simulated)

    async def plan_removal(self, names: Sequence[str]) -> tuple[str, ...]:
        """Installed packages that go with these: what was installed for their sake only, and nothing else's."""
        names = sorted(await self.installed(names))
        if not names:
            return ()
        simulation = ("apt-get", *APT_OPTIONS, IGNORE_SUGGESTIONS, "--simulate")
        before = await self._simulate((*simulation, "autoremove"))
        after = await self._simulate((*simulation, "--auto-remove", "purge", *names))
        orphans_before = parse_simulation(before, "Remv", "Purg")
        return tuple(name for name in parse_simulation(after, "Remv", "Purg") if name not in orphans_before)

    async def list_undoable(self, names: Sequence[str], companions: Sequence[str]) -> tuple[str, ...]:
        """Of what an installation brought, what can go now: nothing that something else has come to need."""
        async with self._lock:
            await self._settle()
        wanted = sorted(await self.installed(names))
        argv = ("--auto-remove", "purge", *wanted) if wanted else ("autoremove",)
        options = (*APT_OPTIONS, IGNORE_SUGGESTIONS, IGNORE_RECOMMENDATIONS, "--simulate")
        simulated = await self._simulate(("apt-get", *options, *argv))
        going = set(parse_simulation(simulated, "Remv", "Purg"))
        return tuple(name for name in (*wanted, *companions) if name in going)

    async def _settle(self) -> None:
        """Let what a dead executor began come to its end, and finish what a power cut left half installed."""
        if self._is_settled:
            return
        for what in ("install", "purge"):
            await self._systemd.wait_for_transients(f"apt-{what}", timeout_seconds=INSTALL_TIMEOUT_SECONDS)
        audit = await run(("dpkg", "--audit"), timeout_seconds=QUERY_TIMEOUT_SECONDS, accepted_codes=(0, 1))
        if audit.stdout.strip():
            await self._run("repair", [_apt("--fix-broken", "install")], NO_SERVICES)
        self._is_settled = True

    async def _simulate(self, argv: Sequence[str]) -> str:
        completed = await run(argv, timeout_seconds=QUERY_TIMEOUT_SECONDS, accepted_codes=(0, 100))
        if completed.exit_code != 0:
            raise FactError("apt cannot tell what would change", context={"stderr": completed.stderr[-1000:]})
        return completed.stdout

    async def _missing(self, names: Sequence[str]) -> tuple[str, ...]:
        installed = await self.installed(names)
        return tuple(name for name in names if name not in installed)

    async def install(self, names: Sequence[str]) -> None:
        """Install what is missing, without recommendations and without starting services.

        Raises:
            CommandError: apt failed, with the end of its output.
        """
        async with self._lock:
            await self._settle()
            missing = await self._missing(require_names(names))
            if not missing:
                return
            commands = []
            if await self._needs_update(missing):
                # A mirror that is down does no harm while the lists we have know the packages.
                commands.append(_apt("update", is_failure_ignored=True))
            commands.append(_apt("--no-install-recommends", "install", *missing))
            await self._run("install", commands, NO_SERVICES)

    async def _needs_update(self, names: Sequence[str]) -> bool:
        try:
            age = time.time() - APT_LISTS.stat().st_mtime
        except OSError:
            return True
        return age > LISTS_FRESH_SECONDS or set(await self._with_candidate(names)) != set(names)

    async def purge(self, names: Sequence[str]) -> None:
        """Remove those of these packages that are installed (or whose configuration still is).

        Raises:
            CommandError: apt failed, with the end of its output.
        """
        async with self._lock:
            await self._settle()
            known = await self._known(require_names(names))
            if known:
                await self._run("purge", [_apt("purge", *known)], {})

    async def _known(self, names: Sequence[str]) -> tuple[str, ...]:
        if not names:
            return ()
        shown = "${Package}\t${db:Status-Status}\n"
        argv = ("dpkg-query", "--show", f"--showformat={shown}", "--", *names)
        completed = await run(argv, timeout_seconds=QUERY_TIMEOUT_SECONDS, accepted_codes=(0, 1))
        rows = (line.split("\t") for line in completed.stdout.splitlines())
        return tuple(dict.fromkeys(row[0] for row in rows if row[1] != "not-installed"))

    async def _run(self, what: str, commands: Sequence[TransientCommand], environment: Mapping[str, str]) -> None:
        # A node that lost power in the middle of dpkg refuses everything until this is done.
        # Until it has ended well nobody knows what it left: the next change looks, and repairs.
        self._is_settled = False
        words = ("env", "SYSTEMD_OFFLINE=1", "dpkg", "--force-confdef", "--force-confold", "--configure", "-a")
        await self._systemd.run_transient(
            f"apt-{what}",
            [TransientCommand(argv=words, is_failure_ignored=True), *commands],
            environment={**APT_ENVIRONMENT, **environment},
            timeout_seconds=INSTALL_TIMEOUT_SECONDS,
        )
        self._is_settled = True
        # The maintainer scripts' own daemon-reload was ignored as well.
        await self._systemd.daemon_reload()

    async def changed_conffiles(self, names: Sequence[str]) -> tuple[str, ...]:
        """Configuration files of installed packages that somebody changed since they were shipped."""
        installed = sorted(await self.installed(names))
        if not installed:
            return ()
        argv = ("dpkg-query", "--show", "--showformat=${Conffiles}\n", "--", *installed)
        shipped = parse_conffiles((await run(argv, timeout_seconds=QUERY_TIMEOUT_SECONDS)).stdout)
        present = await asyncio.to_thread(lambda: sorted(path for path in shipped if Path(path).is_file()))
        if not present:
            return ()
        summed = await run(("md5sum", "--", *present), timeout_seconds=QUERY_TIMEOUT_SECONDS)
        sums = {path: digest for digest, path in (line.split("  ", 1) for line in summed.stdout.splitlines())}
        return tuple(path for path in present if sums.get(path) != shipped[path])


def _apt(*words: str, is_failure_ignored: bool = False) -> TransientCommand:
    return TransientCommand(argv=("apt-get", *APT_OPTIONS, *words), is_failure_ignored=is_failure_ignored)
