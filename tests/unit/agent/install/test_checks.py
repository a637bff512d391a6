"""What a machine must be."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.install.checks import (
    parse_os_release,
    require_supported_architecture,
    require_supported_release,
    require_systemd,
)
from agent.link.setup_errors import ExitCode, SetupError

BOOKWORM = 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nNAME="Debian GNU/Linux"\nVERSION_ID="12"\nID=debian\n# x=y\n'
TRIXIE = "ID=debian\nVERSION_ID='13'\n"
UBUNTU = 'PRETTY_NAME="Ubuntu 24.04 LTS"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID="24.04"\n'


@pytest.mark.parametrize("text", [BOOKWORM, TRIXIE])
def test_release_when_debian_12_or_13_is_supported(text: str) -> None:
    require_supported_release(parse_os_release(text))


@pytest.mark.parametrize(
    ("text", "name"),
    [
        (UBUNTU, "Ubuntu 24.04 LTS"),
        ("ID=debian\nVERSION_ID=11\n", "debian"),
        ("ID=debian\n", "debian"),
        ("", "an unknown system"),
    ],
)
def test_release_when_another_is_refused_by_name(text: str, name: str) -> None:
    with pytest.raises(SetupError, match=name) as caught:
        require_supported_release(parse_os_release(text))

    assert caught.value.exit_code is ExitCode.UNSUPPORTED_SYSTEM


def test_architecture_when_unknown_is_refused() -> None:
    require_supported_architecture("x86_64")
    with pytest.raises(SetupError, match="riscv64"):
        require_supported_architecture("riscv64")


def test_systemd_when_not_in_charge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match="not booted with systemd"):
        require_systemd(tmp_path)
    (tmp_path / "run/systemd/system").mkdir(parents=True)
    require_systemd(tmp_path)


def test_exit_codes_are_all_different_and_fit_a_shell() -> None:
    assert len({code.value for code in ExitCode}) == len(ExitCode)
    assert all(0 <= code <= 125 for code in ExitCode)
