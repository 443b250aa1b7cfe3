"""Ant's observation, reward and ends on hand-made states, against numbers worked out by hand."""

from __future__ import annotations

import math

import mujoco
import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from states import hand_made_state, paid

from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import State, Task
from dualfid_robot.robots.model import RobotModel

DT = 1 / 60


@pytest.fixture
def task(ant: RobotModel) -> Task:
    return make_task("Ant", {"numEnvs": 1, "episodeLength": 1000}, ant, DT)


def state_of(qpos: list[float], qvel: list[float], action: list[float]) -> State:
    return hand_made_state(qpos, qvel, action, [[0.0] * 6] * 4)


def middle_of_joints(task: Task) -> list[float]:
    return task.robot.joint_limits.mean(1).tolist()


def test_reward_of_an_upright_ant_that_moves_towards_the_target(task: Task) -> None:
    joints = middle_of_joints(task)
    before = torch.tensor([[2.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, *joints]])
    action = [0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]
    velocity = [0.0] * 6 + [2.0, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, -1.0]
    state = state_of([2.05, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, *joints], velocity, action)
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    # 0.05 m in 1/60 s is 3 m/s of progress; alive 0.5, up 0.1, heading 0.5; 0.005 (0.25 + 0.25 + 1);
    # 0.05 (0.5·2 + 0.5·4 + 1·1) · 0.2
    expected = 3.0 + 0.5 + 0.1 + 0.5 - 0.005 * 1.5 - 0.05 * 4.0 * 0.2
    assert not ended
    assert paid(task.reward(before, state, observed, ended)) == pytest.approx(expected, abs=2e-3)


def test_reward_counts_joints_at_their_upper_limit_only(task: Task) -> None:
    lower, upper = task.robot.joint_limits.T
    middle = task.robot.joint_limits.mean(1)
    rewards = []
    for joints in (middle, np.where(np.arange(8) < 3, upper, middle), np.where(np.arange(8) < 3, lower, middle)):
        state = state_of([0.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0, *joints.tolist()], [0.0] * 14, [0.0] * 8)
        observed = task.observe(state)
        rewards.append(paid(task.reward(state.qpos, state, observed, torch.tensor([False]))))
    assert rewards[0] - rewards[1] == pytest.approx(0.3, abs=1e-6)
    assert rewards[0] == pytest.approx(rewards[2], abs=1e-6)


@pytest.mark.parametrize(("degrees", "up", "heading"), [(0, 0.1, 0.5), (60, 0.1, 0.5 * 0.5 / 0.8), (120, 0.1, -0.3125)])
def test_heading_reward_falls_with_the_yaw(task: Task, degrees: float, up: float, heading: float) -> None:
    half = math.radians(degrees) / 2
    joints = middle_of_joints(task)
    state = state_of([0.0, 0.0, 0.5, math.cos(half), 0.0, 0.0, math.sin(half), *joints], [0.0] * 14, [0.0] * 8)
    observed = task.observe(state)
    reward = paid(task.reward(state.qpos, state, observed, torch.tensor([False])))
    assert reward == pytest.approx(0.5 + up + heading, abs=1e-5)
    assert observed["target_bearing"].item() == pytest.approx(-math.radians(degrees), abs=1e-6)


def test_a_fallen_ant_gets_the_death_cost_alone(task: Task) -> None:
    state = state_of([0.0, 0.0, 0.309, 1.0, 0.0, 0.0, 0.0, *middle_of_joints(task)], [1.0] * 14, [1.0] * 8)
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    assert ended
    assert paid(task.reward(state.qpos - 1.0, state, observed, ended)) == -2.0


def test_observation_layout_and_frames(task: Task) -> None:
    """All 60 columns of a random state against scipy's rotations and the table of Isaac Gym's observation."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(random_state=0)
    x, y, z, w = rotation.as_quat()
    joints = rng.uniform(*task.robot.joint_limits.T)
    position, velocity, action = rng.normal(size=3), rng.normal(size=14), rng.uniform(-1, 1, 8)
    wrench = rng.normal(size=(4, 6))
    state = hand_made_state([*position, w, x, y, z, *joints], velocity, action, wrench)
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)

    yaw, _, roll = rotation.as_euler("ZYX")
    target = np.array([1000.0, 0.0]) - position[:2]
    bearing = math.atan2(target[1], target[0]) - yaw
    matrix = rotation.as_matrix()
    limits = task.robot.joint_limits
    expected = np.concatenate(
        [
            [position[2]],
            rotation.inv().apply(velocity[:3]),
            velocity[3:6],
            [yaw, roll, (bearing + math.pi) % (2 * math.pi) - math.pi, matrix[2, 2]],
            [matrix[:2, 0] @ target / np.linalg.norm(target)],
            2 * (joints - limits[:, 0]) / (limits[:, 1] - limits[:, 0]) - 1,
            0.2 * velocity[6:],
            0.1 * rotation.inv().apply(wrench.reshape(8, 3)).ravel(),
            action,
        ]
    ).clip(-5, 5)
    assert observation.shape == (1, 60)
    np.testing.assert_allclose(observation.numpy()[0], expected, atol=2e-5)


def test_initial_states_are_valid_and_standing_clear_of_the_ground(task: Task) -> None:
    qpos, qvel = task.sample_initial_state(500, torch.Generator().manual_seed(0))
    lower, upper = task.robot.joint_limits.T
    joints = qpos[:, 7:].numpy()
    assert (joints >= lower - 1e-6).all() and (joints <= upper + 1e-6).all()
    assert (qpos[:, 2] == 0.44).all() and (qvel[:, :6] == 0).all()
    assert qvel[:, 6:].abs().max() <= 0.1
    assert joints.std(0).min() > 0.05
    model, data = task.robot.model, mujoco.MjData(task.robot.model)
    data.qpos[:] = qpos[0].numpy()
    mujoco.mj_forward(model, data)
    assert all(contact.dist > -0.05 for contact in data.contact[: data.ncon])
