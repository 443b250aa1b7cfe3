"""FrankaCabinet's observation, reward and ends on hand-made states, and what its arm, drawer and grip can do."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from states import hand_made_state, paid
from torch import Tensor
from trajectories import random_trajectory

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.kinematics import ForwardKinematics
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import Task
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.train.trainer import Trainer

DT = 1 / 60
SMALL = (
    "task=FrankaCabinet",
    "simulator/low=mujoco_reduced",
    "simulator.high.threads=1",
    "simulator.low.mujoco_reduced.threads=1",
)
HANDLE = (0.0515 + 0.305, 0.0, 0.4 + 0.3172 + 0.01)  # m, drawer closed


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return RobotModel(ASSETS / "franka_cabinet.xml", ("left_finger", "right_finger", "drawer"))


@pytest.fixture
def task(robot: RobotModel) -> Task:
    return make_task("FrankaCabinet", {"numEnvs": 1, "episodeLength": 500, "openedReward": 100.0}, robot, DT)


@pytest.fixture
def make_pool(compose_config: Callable[..., DictConfig]) -> Callable[[str, int, int], EnvironmentPool]:
    experiment = Experiment(compose_config(*SMALL))
    return lambda side, n, seed: experiment.make_pool(
        {"low": experiment.low_engines[0], "high": experiment.high_engine}[side], n, seed
    )


def test_observation_layout_against_mujoco(task: Task) -> None:
    model, data, rng = task.robot.model, mujoco.MjData(task.robot.model), np.random.default_rng(0)
    limits = task.robot.joint_limits
    data.qpos[:] = rng.uniform(*limits.T)
    mujoco.mj_kinematics(model, data)
    velocity = rng.normal(size=10)
    state = hand_made_state(data.qpos.tolist(), velocity.tolist(), rng.uniform(-1, 1, 9).tolist())
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)
    scaled = 2 * (data.qpos - limits[:, 0]) / (limits[:, 1] - limits[:, 0]) - 1
    to_handle = data.site("handle").xpos - data.site("grasp").xpos
    expected = np.concatenate([scaled[:9], 0.1 * velocity[:9], to_handle, data.qpos[9:], velocity[9:]])
    assert observation.shape == (1, 23)
    np.testing.assert_allclose(observation.numpy()[0], expected.clip(-5, 5), atol=2e-6)


def test_what_the_reward_sees_against_mujoco(task: Task) -> None:
    model, data, rng = task.robot.model, mujoco.MjData(task.robot.model), np.random.default_rng(1)
    data.qpos[:] = rng.uniform(*task.robot.joint_limits.T)
    mujoco.mj_kinematics(model, data)
    observed = task.observe(hand_made_state(data.qpos.tolist(), [0.0] * 10, [0.0] * 9))
    hand, drawer = data.body("hand").xmat.reshape(3, 3), data.body("drawer").xmat.reshape(3, 3)
    assert observed["forward"].item() == pytest.approx(hand[:, 2] @ -drawer[:, 0], abs=1e-5)
    assert observed["upward"].item() == pytest.approx(hand[:, 1] @ drawer[:, 2], abs=1e-5)
    for pad in ("left_pad", "right_pad"):
        expected = data.site(pad).xpos - data.site("handle").xpos
        np.testing.assert_allclose(observed[pad].numpy()[0], expected, atol=2e-6)


def reward_of(task: Task, action: float = 0.0, **changes: list[float] | float) -> float:
    """Reward for what is observed with the hand at rest at the handle, up to the changes; every action is the same."""
    seen = {"drawer": 0.0, "to_handle": [0.0, 0.0, 0.0], "forward": 1.0, "upward": 1.0}
    seen |= {"left_pad": [0.0, 0.0, 0.03], "right_pad": [0.0, 0.0, -0.02]} | changes
    observed = {name: torch.tensor([value]) for name, value in seen.items()}
    state = hand_made_state([0.0] * 10, [0.0] * 10, [action] * 9)
    return paid(task.reward(state.qpos, state, observed, task.terminated(state, observed)))


# A hand at the handle: distance 2 · 2, alignment 0.5, around 0.25 · 0.5, pads 5 · (0.08 - 0.03 - 0.02).
AT_HANDLE = 4.0 + 0.5 + 0.125 + 0.15


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, AT_HANDLE),
        ({"action": 0.5}, AT_HANDLE - 0.01 * 9 * 0.25),
        ({"to_handle": [0.3, 0.0, 0.4]}, AT_HANDLE - 4.0 + 2.0 / 1.25**2),
        ({"to_handle": [0.0, 0.019, 0.0]}, AT_HANDLE - 4.0 + 4.0 / 1.000361**2),
        ({"forward": -0.5, "upward": 0.2}, AT_HANDLE - 0.5 + 0.25 * (-0.25 + 0.04)),
        ({"left_pad": [0.0, 0.0, -0.001]}, AT_HANDLE - 0.125 - 0.15),
        ({"drawer": 0.1}, AT_HANDLE + 7.5 * 0.1 * 1.5 + 0.5),
        ({"drawer": 0.3}, AT_HANDLE + 7.5 * 0.3 * 1.5 + 0.5 + 0.5),
        ({"drawer": 0.3, "right_pad": [0.0, 0.0, 0.01]}, AT_HANDLE - 0.125 - 0.15 + 7.5 * 0.3 + 0.5),
        ({"drawer": 0.395}, AT_HANDLE + 7.5 * 0.395 * 1.5 + 0.5 + 0.5 + 1.0 + 100.0),
        ({"drawer": 0.395, "left_pad": [-0.041, 0.0, 0.03]}, -1.0),
        ({"right_pad": [-0.041, 0.0, -0.02]}, -1.0),
    ],
)
def test_reward_on_hand_made_observations(task: Task, changes: dict[str, Any], expected: float) -> None:
    assert reward_of(task, **changes) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("drawer", "ends"), [(0.0, False), (0.389, False), (0.391, True)])
def test_an_episode_ends_and_counts_as_opened_beyond_39_centimetres(task: Task, drawer: float, ends: bool) -> None:
    state = hand_made_state([0.0] * 9 + [drawer], [0.0] * 10, [0.0] * 9)
    observed = task.observe(state)
    measures = task.measure(state, observed)
    assert task.terminated(state, observed).item() == ends
    assert measures["opened"].item() == float(ends)
    assert measures["drawer"].item() == pytest.approx(drawer)


def test_actions_move_the_joint_targets_within_their_limits(task: Task) -> None:
    qpos, _ = task.sample_initial_state(1, torch.Generator().manual_seed(0))
    start = task.initial_control(qpos)
    assert torch.equal(start, qpos[:, :9])
    moved = task.control(torch.full((1, 9), 0.5), start) - start
    np.testing.assert_allclose(moved[0, :7].numpy(), 0.5 * 7.5 / 60, atol=1e-6)
    control = start
    for _ in range(100):
        control = task.control(torch.ones(1, 9), control)
    np.testing.assert_allclose(control[0].numpy(), task.robot.joint_limits[:9, 1], atol=1e-6)
    fingers = task.control(-torch.ones(1, 9), control)[0, 7:]
    np.testing.assert_allclose(fingers.numpy(), 0.04 - 0.1 * 7.5 / 60, atol=1e-6)


def test_initial_states_are_within_the_limits_and_free_of_contact(task: Task) -> None:
    qpos, qvel = task.sample_initial_state(200, torch.Generator().manual_seed(0))
    lower, upper = task.robot.joint_limits.T
    assert (qpos.numpy() >= lower - 1e-6).all() and (qpos.numpy() <= upper + 1e-6).all()
    assert (qvel == 0).all() and (qpos[:, 9] == 0).all()
    assert qpos[:, :7].std(0).min() > 0.05
    model, data = task.robot.model, mujoco.MjData(task.robot.model)
    for state in qpos.numpy():
        data.qpos[:] = state
        mujoco.mj_forward(model, data)
        assert data.ncon == 0


def test_masses_and_lengths_are_the_published_ones(robot: RobotModel) -> None:
    """The arm's identified mass (Gaz et al. 2019: links 1 to 7, 16.06 kg), the hand's with its fingers, and the tool
    centre's place by the Denavit-Hartenberg table."""
    model, data = robot.model, mujoco.MjData(robot.model)
    assert sum(model.body(f"link{i}").mass.item() for i in range(1, 8)) == pytest.approx(16.0622, abs=1e-3)
    assert sum(model.body(name).mass.item() for name in ("hand", "left_finger", "right_finger")) == pytest.approx(0.76)
    data.qpos[:7] = [0.0, 0.0, 0.0, 0.0, 0.0, math.pi / 2, 0.0]
    mujoco.mj_kinematics(model, data)
    # Straight up to the wrist, 0.333 + 0.316 + 0.384 m; the wrist's offset of 0.088 m then points up too, flange and
    # hand point forward, which is the world's -x from the base at x = 1 m.
    expected = [1.0 - 0.107 - 0.1034, 0.0, 0.333 + 0.316 + 0.384 + 0.088]
    np.testing.assert_allclose(data.site("grasp").xpos, expected, atol=1e-6)
    np.testing.assert_allclose(data.site("handle").xpos, HANDLE, atol=1e-6)


@pytest.mark.parametrize("side", ["high", "low"])
def test_the_arm_holds_its_pose(make_pool: Callable[[str, int, int], EnvironmentPool], side: str) -> None:
    pool = make_pool(side, 4, 0)
    start = pool.simulator.qpos.clone()
    for _ in range(120):
        pool.step(torch.zeros(4, 9))
    assert (pool.simulator.qpos - start).abs().max() < 1e-4
    assert not pool.terminated.any()


@pytest.mark.parametrize("side", ["high", "low"])
def test_the_drawer_slides_as_a_damped_mass(
    make_pool: Callable[[str, int, int], EnvironmentPool], side: str, robot: RobotModel
) -> None:
    """x(t) = v m / d · (1 - exp(-d t / m)), and it stops at the end of its slide."""
    simulator = make_pool(side, 2, 0).simulator
    qpos = simulator.qpos.clone()
    qpos[:, 0] = -2.0  # the arm turned out of the way
    qvel = torch.zeros(2, 10)
    qvel[:, 9] = torch.tensor([0.3, 2.0])
    simulator.set_state(torch.arange(2), qpos, qvel)
    for _ in range(30):
        simulator.step(qpos[:, :9], 2)
    mass = robot.model.body("drawer").mass.item()
    expected = 0.3 * mass / 10 * (1 - math.exp(-10 * 0.5 / mass))
    assert simulator.qpos[0, 9].item() == pytest.approx(expected, rel=0.02)
    simulator.set_state(torch.arange(2), qpos, qvel)
    furthest = 0.0
    for _ in range(120):
        simulator.step(qpos[:, :9], 2)
        furthest = max(furthest, simulator.qpos[1, 9].item())
    assert 0.4 < furthest < 0.43
    assert 0.3 < simulator.qpos[1, 9] < 0.4  # where a soft stop lets it come to rest
    assert simulator.qvel[1, 9].abs() < 0.02


def inverse_kinematics(kinematics: ForwardKinematics, joints: Tensor, goal: Tensor, robot: RobotModel) -> Tensor:
    """Joints (7,) that bring the grasp to a place with the hand forward and upright: damped least squares."""
    axes = torch.tensor([[0.0, 0.0, -1.0], [-1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
    lower, upper = torch.from_numpy(robot.joint_limits[:7]).float().unbind(1)

    def error(joints: Tensor) -> Tensor:
        position, rotation = kinematics(torch.cat([joints, torch.zeros(3)])[None])
        turn = 0.5 * torch.linalg.cross(rotation[0, 0], axes, dim=0).sum(1)
        return torch.cat([goal - position[0, 0], turn])

    for _ in range(40):
        miss, slope = error(joints), -torch.autograd.functional.jacobian(error, joints)
        step = slope.T @ torch.linalg.solve(slope @ slope.T + 0.01 * torch.eye(6), miss)
        joints = (joints + step.clamp(-0.2, 0.2)).clamp(lower, upper)
    assert error(joints).norm() < 1e-3
    return joints


@pytest.mark.slow
@pytest.mark.parametrize("side", ["high", "low"])
def test_a_scripted_grasp_and_pull_opens_the_drawer(
    make_pool: Callable[[str, int, int], EnvironmentPool], side: str, robot: RobotModel
) -> None:
    """Through the task's own actions, from random initial states: the task can be solved."""
    pool = make_pool(side, 4, 0)
    kinematics = ForwardKinematics(robot.model, sites=["grasp"])
    x, y, z = HANDLE
    joints, waypoints = pool.task.sample_initial_state(1, torch.Generator().manual_seed(0))[0][0, :7], []
    approach = [(0.1, 0.04, 90), (0.0, 0.04, 60), (0.0, 0.0, 30)]  # m in front of the handle, m per finger, steps
    pull = [(0.045 * k, 0.0, 20) for k in range(1, 11)]
    for ahead, gap, steps in approach + pull:
        joints = inverse_kinematics(kinematics, joints, torch.tensor([x + ahead, y, z]), robot)
        waypoints.append((torch.cat([joints, torch.full((2,), gap)]), steps))
    scale = torch.tensor([7.5 / 60] * 7 + [0.75 / 60] * 2)
    control = pool.simulator.qpos[:, :9].clone()
    opened = torch.zeros(4, dtype=torch.bool)
    for waypoint, steps in waypoints:
        for remaining in range(steps, 0, -1):
            action = ((waypoint - control) / remaining / scale).clamp(-1, 1)
            control = control + action * scale
            pool.step(action)
            opened |= pool.terminated
            assert (pool.measured["opened"][pool.terminated] == 1.0).all()
    assert opened.all()


def test_same_seed_same_trajectory(make_pool: Callable[[str, int, int], EnvironmentPool]) -> None:
    seen = [random_trajectory(make_pool("high", 8, 3), 40) for _ in range(2)]
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])
    assert seen[0][0].std(0).max() > 0


@pytest.mark.slow
def test_training_steps_both_fidelities(compose_config: Callable[..., DictConfig]) -> None:
    settings = ("num_envs=32", "train.params.config.minibatch_size=128", "task.env.episodeLength=20")
    trainer = Trainer(Experiment(compose_config(*SMALL, *settings)))
    rows = [trainer.iterate() for _ in range(2)]
    trainer.close()
    for row in rows:
        assert row["allocation/n_low"] > 0 and row["allocation/n_high"] > 0
    assert all(math.isfinite(rows[-1][f"return/{side}"]) for side in ("low", "high"))
    assert all(math.isfinite(value) for key, value in rows[-1].items() if key.startswith(("loss", "divergence/D")))
