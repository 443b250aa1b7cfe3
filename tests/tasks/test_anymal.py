"""Anymal's asset, observation, reward and ends: against published figures and numbers worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import mujoco
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from scipy.spatial.transform import Rotation
from states import hand_made_state, paid
from trajectories import random_trajectory

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import State, Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.train.trainer import Trainer

DT = 0.02
DEFAULT = [0.03, 0.4, -0.8, 0.03, -0.4, 0.8, -0.03, 0.4, -0.8, -0.03, -0.4, 0.8]
STANDING = [0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, *DEFAULT]
NO_CONTACT = [[0.0] * 6] * 9
SMALL = (
    "task=Anymal",
    "num_envs=32",
    "train.params.config.minibatch_size=192",
    "simulator/low=mujoco_reduced",
    "simulator/high=mujoco",
)


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return RobotModel(ASSETS / "anymal.xml")


@pytest.fixture
def task(robot: RobotModel) -> Task:
    return make_task("Anymal", {"numEnvs": 1, "episodeLength": 2500}, robot, DT)


def reward_of(task: Task, state: State) -> float:
    observed = task.observe(state)
    return paid(task.reward(state.qpos, state, observed, task.terminated(state, observed)))


def test_masses_and_dimensions_are_the_published_ones(robot: RobotModel) -> None:
    """Sums of the parts in ANYbotics' description, and the chain of its joint positions down to a foot."""
    model = robot.model
    base = (
        10.3961 + 0.602 + 1.13247 + 0.30655 + 2 * 0.07792 + 4 * 0.10006 + 2 * 0.1716 + 0.01 + 5.53425 + 0.59537 + 0.59
    )
    leg = (0.001 + 0.61232 + 1.89871) + (0.001 + 1.37356 + 1.89871) + (0.001 + 0.33742 + 0.21663)
    assert model.body("base").mass.item() == pytest.approx(base + 4 * 1.89871, abs=1e-3)
    assert model.body_subtreemass[1] == pytest.approx(base + 4 * (1.89871 + leg), abs=1e-2)
    data = mujoco.MjData(model)
    data.qpos[3] = 1.0
    mujoco.mj_kinematics(model, data)
    x, y, z = 0.2999 + 0.0599 + 0.08795, 0.104 + 0.08381 + 0.1003 + 0.01305, -0.285 - 0.33797 + 0.0225
    for leg_name, signs in {"LF": (1, 1), "LH": (-1, 1), "RF": (1, -1), "RH": (-1, -1)}.items():
        foot = data.geom(f"{leg_name}_foot").xpos - data.body("base").xpos
        np.testing.assert_allclose(foot, (signs[0] * x, signs[1] * y, z), atol=1e-4)


def test_joints_turn_alike_on_all_legs(robot: RobotModel) -> None:
    """HAA about the base's x axis, HFE and KFE about its y axis, in the order that the default position relies on."""
    axes = {"HAA": (1, 0, 0), "HFE": (0, 1, 0), "KFE": (0, 1, 0)}
    names = [f"{leg}_{joint}" for leg in ("LF", "LH", "RF", "RH") for joint in axes]
    assert list(robot.joint_names) == names == list(robot.actuator_names)
    for name in names:
        np.testing.assert_array_equal(robot.model.joint(name).axis, axes[name[3:]])


def test_observation_layout_and_frames(task: Task) -> None:
    """The actor's 48 columns and the critic's 12 further ones against scipy's rotations."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(random_state=0)
    x, y, z, w = rotation.as_quat()
    joints, velocity = rng.normal(size=12), rng.normal(size=18)
    action, wrench, command = rng.uniform(-1, 1, 12), 100 * rng.normal(size=(9, 6)), rng.uniform(-1, 1, 3)
    state = hand_made_state([0, 0, 0.5, w, x, y, z, *joints], velocity, action, wrench, memory={"command": command})
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)
    expected = np.concatenate(
        [
            2.0 * rotation.inv().apply(velocity[:3]),
            0.25 * velocity[3:6],
            rotation.inv().apply([0.0, 0.0, -1.0]),
            2.0 * command[:2],
            0.25 * command[2:],
            joints - DEFAULT,
            0.05 * velocity[6:],
            action,
            0.01 * rotation.inv().apply(wrench[5:, :3]).ravel(),
        ]
    ).clip(-5, 5)
    assert observation.shape == (1, 60) and task.num_privileged == 12
    np.testing.assert_allclose(observation.numpy()[0], expected, atol=2e-5)


def test_reward_tracks_the_command_and_pays_for_torque(task: Task) -> None:
    velocity = [0.7, 0.4, 0.0, 0.0, 0.0, 0.2] + [0.0] * 11 + [1.0]
    joints = np.array(DEFAULT)
    joints[0] += 0.1
    state = hand_made_state(
        [0.0, 0.0, 0.55, 1.0, 0.0, 0.0, 0.0, *joints],
        velocity,
        [0.0] * 12,
        NO_CONTACT,
        control=DEFAULT,
        memory={"command": [1.0, 0.0, 0.5]},
    )
    # errors 0.3, -0.4 m/s and 0.3 rad/s; torques -8.5 N m at LF_HAA (85 · 0.1) and -2 N m at RH_KFE (2 · 1)
    expected = math.exp(-(0.09 + 0.16) / 0.25) + 0.5 * math.exp(-0.09 / 0.25) - 2.5e-5 * (8.5**2 + 2.0**2)
    assert reward_of(task, state) == pytest.approx(expected * DT, rel=1e-4)
    measured = task.measure(state, task.observe(state))
    assert measured["velocity_error"].item() == pytest.approx(0.5, abs=1e-6)
    assert measured["yaw_rate_error"].item() == pytest.approx(0.3, abs=1e-6)


def test_command_is_in_the_base_frame(task: Task) -> None:
    """Turned by 90 degrees, a base that moves along the world's y axis moves forward."""
    half = math.radians(90) / 2
    state = hand_made_state(
        [0.0, 0.0, 0.55, math.cos(half), 0.0, 0.0, math.sin(half), *DEFAULT],
        [0.0, 1.5, 0.0] + [0.0] * 15,
        [0.0] * 12,
        NO_CONTACT,
        control=DEFAULT,
        memory={"command": [1.5, 0.0, 0.0]},
    )
    assert reward_of(task, state) == pytest.approx(1.5 * DT, rel=1e-5)


def test_reward_is_never_negative(task: Task) -> None:
    """Twelve saturated servos cost 2.5e-5 · 12 · 80² = 1.92 a second, more than perfect tracking earns."""
    control = [joint + 2.0 for joint in DEFAULT]
    state = hand_made_state(STANDING, [0.0] * 18, [0.0] * 12, NO_CONTACT, control, memory={"command": [0.0] * 3})
    assert reward_of(task, state) == 0.0


@pytest.mark.parametrize(
    ("body", "force", "ends"), [(0, 1.1, True), (4, 1.1, True), (4, 0.9, False), (5, 200.0, False)]
)
def test_contact_of_base_or_thigh_ends_the_episode(task: Task, body: int, force: float, ends: bool) -> None:
    wrench = np.zeros((9, 6))
    wrench[body, :3] = np.array([0.6, 0.0, 0.8]) * force
    state = hand_made_state(STANDING, [0.0] * 18, [0.0] * 12, wrench.tolist(), memory={"command": [0.0] * 3})
    assert task.contact_bodies[body] == ("base", "LF_THIGH", "LH_THIGH", "RF_THIGH", "RH_THIGH", "LF_SHANK")[body]
    assert task.terminated(state, task.observe(state)).item() is ends


def test_episodes_begin_with_a_command_within_its_ranges(task: Task) -> None:
    last = State(*(torch.zeros(4000, size) for size in (19, 18)), torch.zeros(4000, 9, 6), *[torch.zeros(4000)] * 3)
    start = task.begin_episode(last, torch.Generator().manual_seed(0))
    command = start.memory["command"]
    bounds = torch.tensor([2.0, 1.0, 1.0])
    assert (command.abs() <= bounds).all() and (command.abs().amax(0) > 0.99 * bounds).all()
    np.testing.assert_allclose(command.mean(0), 0.0, atol=0.1)
    ratio = start.qpos[:, 7:] / torch.tensor(DEFAULT)
    assert 0.5 <= ratio.min() < 0.51 and 1.49 < ratio.max() <= 1.5
    assert (start.qpos[:, 2] == 0.62).all() and (start.qvel[:, :6] == 0.0).all()
    assert 0.099 < start.qvel[:, 6:].abs().max() <= 0.1


def test_a_wrong_range_is_refused_by_name(robot: RobotModel) -> None:
    settings = {"numEnvs": 1, "episodeLength": 10, "randomCommandVelocityRanges": {"yaw": [1.0, -1.0]}}
    with pytest.raises(ConfigError, match=r"randomCommandVelocityRanges\.yaw=\[1\.0, -1\.0\]"):
        make_task("Anymal", settings, robot, DT)


@pytest.fixture
def make_pool(compose_config: Callable[..., DictConfig]) -> Callable[..., EnvironmentPool]:
    def made(side: str, seed: int = 0) -> EnvironmentPool:
        experiment = Experiment(compose_config(*SMALL))
        return experiment.make_pool({"low": experiment.low_engines[0], "high": experiment.high_engine}[side], 8, seed)

    return made


@pytest.mark.parametrize("side", ["low", "high"])
def test_it_stands_on_its_feet_without_action(side: str, make_pool: Callable[..., EnvironmentPool]) -> None:
    """The feet carry the published weight; the legs sag by what the servos give way."""
    pool = make_pool(side)
    for _ in range(100):
        pool.step(torch.zeros(8, 12))
        assert not pool.terminated.any()
    height, up = pool.simulator.qpos[:, 2], 1 - 2 * pool.simulator.qpos[:, 4:6].square().sum(1)
    assert (height > 0.45).all() and (height < 0.56).all() and (up > 0.99).all()
    force = pool.simulator.contact_wrench[:, 5:, 2].sum(1)
    np.testing.assert_allclose(force, 53.02 * 9.81, rtol=0.05)
    pool.simulator.close()


def test_a_robot_that_lies_on_its_back_has_fallen(make_pool: Callable[..., EnvironmentPool]) -> None:
    pool = make_pool("high")
    on_its_back = torch.tensor([[0.0, 0.0, 0.12, 0.0, 1.0, 0.0, 0.0, *DEFAULT]])
    pool.simulator.set_state(torch.tensor([3]), on_its_back, torch.zeros(1, 18))
    ended = torch.zeros(8, dtype=torch.bool)
    for _ in range(10):
        pool.step(torch.zeros(8, 12))
        ended |= pool.terminated
    assert ended.tolist() == [False, False, False, True, False, False, False, False]
    pool.simulator.close()


def test_the_same_seed_gives_the_same_trajectory(make_pool: Callable[..., EnvironmentPool]) -> None:
    trajectories = [random_trajectory(make_pool("high", seed), 40)[0] for seed in (1, 1, 2)]
    assert torch.equal(trajectories[0], trajectories[1])
    assert not torch.equal(trajectories[0], trajectories[2])


def test_both_fidelities_train(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL)))
    for _ in range(2):
        metrics = trainer.iterate()
    trainer.close()
    assert metrics["allocation/n_low"] > 0 and metrics["allocation/n_high"] > 0
    for side in ("low", "high"):
        assert 0.0 < metrics[f"measure_velocity_error/{side}"] < 5.0 and metrics[f"failures/{side}"] == 0
    assert all(map(math.isfinite, metrics.values()))
