"""Imports go one way, and everything is found by name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from dualfid_robot.runners.installation import ROOT

ALLOWED = {
    "robots": {"robots"},
    "simulators": {"simulators", "robots"},
    "envs": {"envs", "simulators", "robots"},
    "adapters": {"adapters", "envs"},
    "policies": {"policies"},
    "algorithms": {"algorithms", "policies"},
    "deploy": {"deploy", "envs", "simulators", "robots"},
    "runners": {"runners", "deploy", "algorithms", "policies", "envs", "simulators", "robots"},
    "transfer": {"transfer", "runners", "deploy", "policies", "envs", "simulators", "robots"},
    "studies": {"studies", "runners", "algorithms"},
    "tasks": {"envs"},
}
COMMON = {"errors", "settings"}


def imported_parts(path: Path) -> set[str]:
    """Sub-packages of dualfid_robot that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("dualfid_robot."):
                parts.add(name.split(".")[1])
    return parts


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    folder = ROOT / "tasks" if part == "tasks" else ROOT / "dualfid_robot" / part
    files = list(folder.rglob("*.py"))
    assert files
    for path in files:
        extra = imported_parts(path) - ALLOWED[part] - COMMON
        assert not extra, f"{path.relative_to(ROOT)} imports {extra}"


def test_every_file_that_the_architecture_names_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    names = {name for name in re.findall(r"`([\w/.]+\.py)`", text) if "my_" not in name}
    assert len(names) > 15
    for name in names:
        assert any((place / name).is_file() for place in (ROOT, ROOT / "dualfid_robot")), name
