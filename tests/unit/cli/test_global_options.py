from __future__ import annotations

import pytest

from cli.global_options import hoist


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("accounts list --json", "--json accounts list"),
        ("accounts list -v --json", "-v --json accounts list"),
        ("accounts list --profile east", "--profile east accounts list"),
        (
            "accounts list --controller=https://x --ca-file ca.pem",
            "--controller=https://x --ca-file ca.pem accounts list",
        ),
        ("--json accounts list", "--json accounts list"),
        ("accounts list --profile", "accounts list --profile"),
        ("accounts suspend alice --reason=--json", "accounts suspend alice --reason=--json"),
        ("accounts show -- --json", "accounts show -- --json"),
        ("accounts list --jsonish", "accounts list --jsonish"),
        ("", ""),
    ],
)
def test_hoist_when_options_follow_the_verb_puts_them_first(line: str, expected: str) -> None:
    assert hoist(line.split()) == expected.split()
