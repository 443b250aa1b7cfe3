"""Cartpole's reward and ends against hand-computed numbers."""

from __future__ import annotations

import pytest
import torch
from states import hand_made_state, paid

from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import Task
from dualfid_robot.robots.model import RobotModel


@pytest.fixture
def task(cartpole: RobotModel) -> Task:
    return make_task("Cartpole", {"numEnvs": 1, "episodeLength": 500}, cartpole, 1 / 60)


@pytest.mark.parametrize(
    ("position", "angle", "velocity", "rate", "expected", "ends"),
    [
        (0.0, 0.0, 0.0, 0.0, 1.0, False),
        (2.9, 0.5, -2.0, 4.0, 1.0 - 0.25 - 0.02 - 0.02, False),
        (-3.1, 0.0, 0.0, 0.0, -2.0, True),
        (0.0, 1.6, 0.0, 0.0, -2.0, True),
    ],
)
def test_reward(
    task: Task, position: float, angle: float, velocity: float, rate: float, expected: float, ends: bool
) -> None:
    state = hand_made_state([position, angle], [velocity, rate], [0.0])
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    assert bool(ended) is ends
    assert paid(task.reward(state.qpos, state, observed, ended)) == pytest.approx(expected, abs=1e-6)
    observation = torch.zeros(1, 4)
    task.write_observation(observed, observation, first=True)
    assert observation[0].tolist() == pytest.approx([position, velocity, angle, rate])
