"""Engines under test: their names, and which of them are missing or refuse something."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest

from dualfid_robot.conformance.cases import CASES
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.base import Simulator

Make = Callable[..., Simulator]


def on_every_engine() -> list[Any]:
    """The names of all engines, as parameters of a test; those on CUDA are marked `gpu`."""
    marks = {name: [pytest.mark.gpu] if engine.device != "cpu" else [] for name, engine in CASES.items()}
    return [pytest.param(name, marks=marks[name], id=name) for name in CASES]


def skip_missing(engine: str) -> None:
    """Skip where an engine cannot run, and say why."""
    if reason := CASES[engine].missing():
        pytest.skip(f"{engine}: {reason}")


def refused(engine: str, subject: str) -> AbstractContextManager[object]:
    """Expect the refusal that the engine's case announces for a property or a robot, if it announces one."""
    named = CASES[engine].refuses.get(subject)
    return pytest.raises(ConfigError, match=named) if named else contextlib.nullcontext()
