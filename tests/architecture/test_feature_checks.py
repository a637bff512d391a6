"""Whether a package has a feature is asked in few places, so that the answer is the same everywhere."""

from __future__ import annotations

import ast
from pathlib import Path

CONTROLLER = Path(__file__).resolve().parents[2] / "controller"
ASKING = {
    "core/limits/check.py": "the one check of use cases: has_feature and require_feature",
    "core/accounts/manifest.py": "tells contributors the features, for what nodes are told",
    "core/auth/obligations.py": "the API feature, for every request of a client's people",
    "core/resellers/bounds.py": "compares a package with its parent",
    "modules/ssh/manifest.py": "a contributor",
    "modules/web/manifest.py": "a contributor",
}
"""Files that may look at features outside of what keeps packages themselves."""


def _looks(tree: ast.AST) -> bool:
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in {"flags", "features"} and isinstance(node.ctx, ast.Load):
            # `limits.flags` is the registry: which features there are, and nobody's.
            is_registry = isinstance(node.value, ast.Attribute) and node.value.attr == "limits"
            if not is_registry and not (isinstance(node.value, ast.Name) and node.value.id == "registry"):
                return True
        if isinstance(node, ast.Name) and node.id == "flags_of":
            return True
    return False


def test_features_of_packages_are_looked_at_in_the_known_places_only() -> None:
    found = {
        path.relative_to(CONTROLLER).as_posix()
        for path in CONTROLLER.rglob("*.py")
        if not path.relative_to(CONTROLLER).as_posix().startswith("core/packages/")
        and _looks(ast.parse(path.read_text(encoding="utf-8")))
    }

    assert found == set(ASKING), "ask controller.core.limits.check.require_feature (or has_feature) instead"
