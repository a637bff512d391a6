"""How this machine reaches Debian's packages: its own apt configuration, read at run time.

A lab builds its images from wherever its machine gets packages (a mirror, a proxy, the public servers), so that nothing
about any one machine's network is written down here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from wcplab.process import run

DEFAULT_MIRROR = "http://deb.debian.org/debian"
DEFAULT_SECURITY_MIRROR = "http://deb.debian.org/debian-security"
"""Source: sources.list(5) and deb.debian.org: Debian's own network of mirrors, for machines that say nothing else."""

DEBIAN_KEYRING = "debian-archive-keyring"
OPTION = re.compile(r"Acquire::(?:https?::(?!Proxy-Auto-Detect)|Retries|ForceIPv[46]|Check-Valid-Until|Check-Date)")
"""Options that decide whether packages can be fetched. A proxy script is left out: it is this machine's program."""


@dataclass(frozen=True)
class AptSource:
    """One source of packages, whichever of the two formats it was written in."""

    uris: tuple[str, ...]
    suites: tuple[str, ...]
    components: tuple[str, ...]
    signed_by: str = ""


def parse_one_line(text: str) -> list[AptSource]:
    """Parse the traditional format. Source: sources.list(5), "one-line-style"."""
    found = []
    for line in text.splitlines():
        match = re.fullmatch(r"deb\s+(?:\[([^]]*)\]\s+)?(\S+)\s+(\S+)((?:\s+\S+)*)", line.split("#")[0].strip())
        if match is None:
            continue
        options, uri, suite, components = match.groups()
        signed_by = next((o.partition("=")[2] for o in (options or "").split() if o.startswith("signed-by=")), "")
        found.append(AptSource((uri,), (suite,), tuple(components.split()), signed_by))
    return found


def parse_deb822(text: str) -> list[AptSource]:
    """Parse the stanza format. Source: sources.list(5), "deb822-style"."""
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = _parse_stanza(stanza)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        uris, suites, components = (tuple(fields.get(key, "").split()) for key in ("uris", "suites", "components"))
        found.append(AptSource(uris, suites, components, fields.get("signed-by", "")))
    return found


def _parse_stanza(stanza: str) -> dict[str, str]:
    fields: dict[str, str] = {}
    key = ""
    for line in stanza.splitlines():
        if line.startswith("#"):
            continue
        if line[:1].isspace():
            fields[key] = f"{fields.get(key, '')} {line.strip()}"
        elif ":" in line:
            key, value = line.split(":", 1)
            key = key.strip().lower()
            fields[key] = value.strip()
    return fields


def source_lines(sources: Iterable[AptSource], *, host_codename: str, suite: str) -> list[str]:
    """Return the sources.list lines of a suite: this machine's Debian sources, its own release replaced by the suite.

    Only Debian's own archive counts (path debian…, component main): a vendor's repository on this machine is no part of
    a bare Debian. Falls back to Debian's public servers.
    """
    lines = []
    for source in sources:
        keyring = f"[signed-by={source.signed_by}] " if source.signed_by.startswith("/") else ""
        for uri in source.uris:
            is_debian = uri.rstrip("/").rpartition("/")[2].startswith("debian") and "main" in source.components
            for name in source.suites if is_debian else ():
                tail = name.removeprefix(host_codename)
                if name.startswith(host_codename) and tail in {"", "-updates", "-security"}:
                    lines.append(f"deb {keyring}{uri} {suite}{tail} main")
    return list(dict.fromkeys(lines)) or default_lines(suite)


def default_lines(suite: str) -> list[str]:
    """The sources of a suite on Debian's public servers."""
    return [
        f"deb {DEFAULT_MIRROR} {suite} main",
        f"deb {DEFAULT_MIRROR} {suite}-updates main",
        f"deb {DEFAULT_SECURITY_MIRROR} {suite}-security main",
    ]


def read_sources(apt_directory: Path = Path("/etc/apt")) -> list[AptSource]:
    """Return the sources this machine uses."""
    folder = apt_directory / "sources.list.d"
    one_line = [apt_directory / "sources.list", *sorted(folder.glob("*.list"))]
    found = [source for path in one_line if path.is_file() for source in parse_one_line(path.read_text("utf-8"))]
    for path in sorted(folder.glob("*.sources")):
        found += parse_deb822(path.read_text("utf-8"))
    return found


def read_codename(os_release: Path = Path("/etc/os-release")) -> str:
    """Return this machine's release name (bookworm), or a text no suite starts with. Source: os-release(5)."""
    match = re.search(r'^VERSION_CODENAME="?([a-z]+)', os_release.read_text("utf-8"), re.MULTILINE)
    return match.group(1) if match else "unknown"


def choose_options(dump: Sequence[str]) -> list[str]:
    """Pick out of `apt-config dump` what decides whether packages can be fetched; empty values say nothing."""
    return [line for line in dump if OPTION.match(line) and not line.rstrip().endswith('"";')]


def read_options() -> list[str]:
    """Return this machine's apt options that matter for fetching, as lines of an apt.conf."""
    return choose_options(run(["apt-config", "dump"], timeout_seconds=20.0).check().stdout.splitlines())
