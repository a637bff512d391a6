"""The composition root: every module is known, and the root process stays small."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from agent.bootstrap import build_registry, run_executor
from agent.core.journal import Journal
from shared.specs.module import ModuleSpec
from tests.integration.executor.bench import account, pool, site

# msgspec takes typing_extensions where it finds it, dbus_fast is compiled.
ALLOWED = {"msgspec", "cryptography", "dbus_fast", "jinja2", "markupsafe", "agent", "shared"} | {
    "typing_extensions",
    "cython_runtime",
}
_IMPORTED = """
import json, sys
before = set(sys.modules)
import agent.bootstrap
names = {name.partition(".")[0] for name in set(sys.modules) - before}
print(json.dumps(sorted(name for name in names if name not in sys.stdlib_module_names and not name.startswith("_"))))
"""


def test_registry_when_built_knows_every_kind_of_spec() -> None:
    registry = build_registry()

    assert set(registry.versions) == {"account", "php", "ssh", "web"}
    for spec in (account(), pool(), site(), ModuleSpec(name="account"), ModuleSpec(name="php"), ModuleSpec(name="web")):
        assert isinstance(spec, registry.require_converger(spec).spec_type)


def test_bootstrap_when_imported_loads_only_the_light_libraries() -> None:
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run([sys.executable, "-c", _IMPORTED], cwd=root, capture_output=True, text=True, check=True)

    assert set(json.loads(done.stdout)) <= ALLOWED


def test_run_executor_when_told_clears_the_quarantine(tmp_path) -> None:
    journal = Journal(tmp_path)
    number = journal.ledger.begin("account/alice", None)
    journal.ledger.mark_broken(number)
    journal.set_quarantine("an undo failed")
    journal.close()

    status = run_executor(argparse.Namespace(state_dir=str(tmp_path), clear_quarantine=True))

    journal = Journal(tmp_path)
    assert (status, journal.quarantine, journal.ledger.list_transactions()) == (0, "", [])
    journal.close()
