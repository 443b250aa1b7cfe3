"""Fixtures of the environments' tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

import dualfid_robot
from dualfid_robot.adapters.gymnasium import PoolVectorEnv


@pytest.fixture
def make() -> Iterator[Callable[..., PoolVectorEnv]]:
    """`make_vec` in reduced MuJoCo; what it made is closed after the test."""
    made: list[PoolVectorEnv] = []

    def make_vec(task: str = "Cartpole", simulator: str = "mujoco_reduced", **settings: object) -> PoolVectorEnv:
        made.append(dualfid_robot.make_vec(task, simulator=simulator, **settings))
        return made[-1]

    yield make_vec
    for env in made:
        env.close()
