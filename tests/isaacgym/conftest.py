"""Isaac Gym's modules, and files of two small robots."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_robots import LEG, POLE, WALKER

from dualfid_robot.isaacgym.provide import MODULES, provide


@pytest.fixture
def gymapi() -> Iterator[Any]:
    """`isaacgym.gymapi`, for one test."""
    names = ("isaacgym", *(f"isaacgym.{name}" for name in MODULES))
    provide(replace=True)
    yield sys.modules["isaacgym.gymapi"]
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture
def walker(tmp_path: Path) -> Path:
    """A URDF of a base on four legs of one joint each."""
    places = {"RR": (-0.15, -0.1), "FR": (0.15, -0.1), "RL": (-0.15, 0.1), "FL": (0.15, 0.1)}
    legs = "\n".join(LEG.format(side=side, x=x, y=y) for side, (x, y) in places.items())
    path = tmp_path / "walker.urdf"
    path.write_text(WALKER.replace("LEGS", legs))
    return path


@pytest.fixture
def pole(tmp_path: Path) -> Path:
    """An MJCF of a cart with a pole."""
    path = tmp_path / "pole.xml"
    path.write_text(POLE)
    return path
