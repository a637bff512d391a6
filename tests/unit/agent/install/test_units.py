"""The units that are shipped, and putting them in their place."""

from __future__ import annotations

import configparser
from pathlib import Path

import pytest

from agent.install.units import STARTED_UNITS, UNITS, ensure_unit_files, unit_dir
from shared.protocol.local import EXECUTOR_SOCKET

SOURCE = Path(__file__).parents[4] / "packaging/systemd"


class Directives(dict[str, list[str]]):
    """All values of each directive, whatever its section; a unit file repeats names."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        for line in path.read_text().splitlines():
            name, separator, value = line.partition("=")
            if separator and not line.startswith("#"):
                self.setdefault(name, []).append(value)


def test_unit_files_when_missing_are_written_once(tmp_path: Path) -> None:
    unit_dir(tmp_path).mkdir(parents=True)

    assert ensure_unit_files(SOURCE, tmp_path) == list(UNITS)
    assert ensure_unit_files(SOURCE, tmp_path) == []
    assert (unit_dir(tmp_path) / "wcp-agent.service").stat().st_mode & 0o777 == 0o644


def test_unit_files_when_one_was_edited_is_put_right(tmp_path: Path) -> None:
    unit_dir(tmp_path).mkdir(parents=True)
    ensure_unit_files(SOURCE, tmp_path)
    (unit_dir(tmp_path) / "wcp-agent.service").write_text("edited")

    assert ensure_unit_files(SOURCE, tmp_path) == ["wcp-agent.service"]


def test_shipped_units_are_exactly_the_known_ones() -> None:
    assert sorted(path.name for path in SOURCE.glob("wcp-*")) == sorted(UNITS)
    assert set(STARTED_UNITS) < set(UNITS)


def test_agent_unit_has_no_capability_and_no_way_to_one() -> None:
    directives = Directives(SOURCE / "wcp-agent.service")

    assert directives["CapabilityBoundingSet"] == [""]
    assert directives["AmbientCapabilities"] == [""]
    assert directives["NoNewPrivileges"] == ["yes"]
    assert directives["User"] == ["wcp-agent"]


def test_executor_unit_has_no_network_and_cannot_become_another_user() -> None:
    directives = Directives(SOURCE / "wcp-executor.service")

    assert directives["PrivateNetwork"] == ["yes"]
    capabilities = directives["CapabilityBoundingSet"][0].split()
    assert not {"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_SETUID", "CAP_SYS_MODULE", "CAP_SYS_PTRACE"} & set(capabilities)


def test_executor_socket_is_where_the_agent_looks_and_closed_to_others() -> None:
    directives = Directives(SOURCE / "wcp-executor.socket")

    assert directives["ListenStream"] == [EXECUTOR_SOCKET]
    assert (directives["SocketGroup"], directives["SocketMode"]) == (["wcp-agent"], ["0660"])


@pytest.mark.parametrize("name", UNITS)
def test_unit_has_no_line_that_is_neither_section_nor_directive_nor_comment(name: str) -> None:
    parser = configparser.RawConfigParser(strict=False, allow_no_value=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]

    parser.read_string((SOURCE / name).read_text())

    assert "Unit" in parser.sections()
