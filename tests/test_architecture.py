"""Imports go one way, and everything is found by name."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

_ENGINES = {"simulators", "robots"}
_WORLDS = {"envs", *_ENGINES}
_LEARNING = {"algorithms", "policies"}
_RUNS = {"runs", "config", "view", *_LEARNING, *_WORLDS}
_EXPORT = {"export", "onboard", "evaluate", *_RUNS}
ALLOWED = {
    "robots": {"robots"},
    "simulators": _ENGINES,
    "envs": _WORLDS,
    "policies": {"policies"},
    "algorithms": _LEARNING,
    "config": {"config", *_LEARNING, *_WORLDS},
    "view": {"view", "config", "robots"},
    "runs": _RUNS,
    "evaluate": {"evaluate", *_RUNS},
    "onboard": {"onboard"},
    "export": _EXPORT,
    "train": {"train", *_EXPORT},
    "calibrate": {"calibrate", *_RUNS},
    "check": {"check", *_EXPORT},
    "play": {"play", *_EXPORT},
    "adapters": {"adapters", "config", *_WORLDS},
    "transfer": {"transfer", *_EXPORT},
    "studies": {"studies", "train", *_EXPORT},
    "tasks": {"envs", "tasks"},
    "isaacgym": {"isaacgym", "config", *_WORLDS},
    "conformance": {"conformance", "config", *_ENGINES},
}
COMMON = {"atomic", "command", "errors", "settings", "threads"}


def imported_parts(path: Path) -> set[str]:
    """Sub-packages of dualfid_robot that a file imports."""
    parts = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name == "dualfid_robot" and isinstance(node, ast.ImportFrom):
                parts |= {alias.name for alias in node.names} - {"__version__"}
            elif name.startswith("dualfid_robot."):
                parts.add(name.split(".")[1])
    return parts


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_go_one_way(part: str) -> None:
    files = list((ROOT / "dualfid_robot" / part).rglob("*.py"))
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


@pytest.mark.parametrize("path", sorted((ROOT / "benchmarks").glob("*.py")), ids=lambda path: path.stem)
def test_what_a_benchmark_imports_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("dualfid_robot"):
            module = importlib.import_module(str(node.module))
            missing = [name.name for name in node.names if not hasattr(module, name.name)]
            assert not missing, f"{node.module} has no {missing}"
