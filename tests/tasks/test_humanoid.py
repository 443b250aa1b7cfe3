"""Humanoid: the asset against published figures, the task on hand-made states against numbers worked out by hand."""

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

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import State, Task
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.train.trainer import Trainer

DT = 1 / 60
FEET = ("right_foot", "left_foot")
UPRIGHT = [0.0, 0.0, 1.3, 1.0, 0.0, 0.0, 0.0]
GEARS = {
    "abdomen_z": 67.5,
    "abdomen_y": 67.5,
    "abdomen_x": 67.5,
    "hip_x": 45.0,
    "hip_z": 45.0,
    "hip_y": 135.0,
    "knee": 90.0,
    "ankle_y": 22.5,
    "ankle_x": 22.5,
    "shoulder1": 67.5,
    "shoulder2": 67.5,
    "elbow": 45.0,
}


@pytest.fixture(scope="module")
def humanoid() -> RobotModel:
    return RobotModel(ASSETS / "humanoid.xml", FEET)


@pytest.fixture
def task(humanoid: RobotModel) -> Task:
    return make_task("Humanoid", {"numEnvs": 1, "episodeLength": 1000}, humanoid, DT)


def state_of(qpos: list[float], qvel: list[float], action: list[float]) -> State:
    return hand_made_state(qpos, qvel, action, [[0.0] * 6] * 2)


def at(humanoid: RobotModel, values: dict[str, float]) -> list[float]:
    """Joint values, or actions, by name; the others are zero."""
    return [values.get(name, 0.0) for name in humanoid.joint_names]


def middle_of_joints(humanoid: RobotModel) -> list[float]:
    return humanoid.joint_limits.mean(1).tolist()


def gears(humanoid: RobotModel) -> list[float]:
    return [GEARS[name.removeprefix("left_").removeprefix("right_")] for name in humanoid.joint_names]


def test_asset_has_the_published_joints_motors_and_mass(humanoid: RobotModel) -> None:
    model = humanoid.model
    assert len(humanoid.joint_names) == 21 and humanoid.actuator_names == humanoid.joint_names
    assert model.actuator_gear[:, 0].tolist() == gears(humanoid)
    assert model.body_subtreemass[1] == pytest.approx(40.84, abs=0.005)  # of dm_control's humanoid, kg
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    foot = model.geom("right_foot_inside").id
    # Isaac Gym starts 1.34 m high; the soles are 0.26 + 0.165 + 0.04 + 0.403 + 0.39 + 0.027 m below the torso.
    assert data.geom_xpos[foot, 2] - model.geom_size[foot, 0] == pytest.approx(1.34 - 1.285, abs=1e-9)


def test_a_mirrored_start_gives_a_mirrored_motion(humanoid: RobotModel) -> None:
    """Left and right are the same robot: a slip in one axis, range or geom of a side would show."""
    names = humanoid.joint_names
    swapped = {"left": "right", "right": "left"}
    partner = [names.index("_".join(swapped.get(part, part) for part in name.split("_"))) for name in names]
    sign = np.array([-1.0 if name.endswith(("abdomen_x", "abdomen_z", "ankle_x")) else 1.0 for name in names])
    rng = np.random.default_rng(0)
    lower, upper = humanoid.joint_limits.T
    model = humanoid.compile(DT / 4)
    data, mirror = mujoco.MjData(model), mujoco.MjData(model)
    data.qpos[7:] = rng.uniform(0.5 * lower, 0.5 * upper)
    mirror.qpos[7:] = sign * data.qpos[7:][partner]
    for _ in range(60):
        data.ctrl[:] = rng.uniform(-0.4, 0.4, 21)
        mirror.ctrl[:] = sign * data.ctrl[partner]
        mujoco.mj_step(model, data)
        mujoco.mj_step(model, mirror)
    moved = np.abs(data.qpos[7:]).max()
    np.testing.assert_allclose(mirror.qpos[7:], sign * data.qpos[7:][partner], atol=1e-6 * moved)
    np.testing.assert_allclose(mirror.qpos[:3], data.qpos[:3] * (1, -1, 1), atol=1e-6)
    np.testing.assert_allclose(mirror.qpos[3:7], data.qpos[3:7] * (1, -1, 1, -1), atol=1e-6)


def test_reward_of_an_upright_humanoid_that_moves_towards_the_target(task: Task, humanoid: RobotModel) -> None:
    joints = middle_of_joints(humanoid)
    before = torch.tensor([[2.0, *UPRIGHT[1:], *joints]])
    action = at(humanoid, {"right_hip_y": 0.5, "left_knee": -1.0, "left_elbow": 0.5})
    velocity = [0.0] * 6 + at(humanoid, {"right_hip_y": 4.0, "left_knee": 3.0, "left_ankle_x": 7.0})
    state = state_of([2.05, *UPRIGHT[1:], *joints], velocity, action)
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    # 0.05 m in 1/60 s is 3 m/s of progress; alive 2, up 0.1, heading 0.5; 0.01 (0.25 + 1 + 0.25);
    # 0.05 · 0.1 (0.5·4 · 135/135 + 1·3 · 90/135)
    expected = 3.0 + 2.0 + 0.1 + 0.5 - 0.01 * 1.5 - 0.05 * 0.1 * (2.0 + 2.0)
    assert not ended
    assert paid(task.reward(before, state, observed, ended)) == pytest.approx(expected, abs=2e-3)
    assert task.measure(state, observed)["speed"].item() == 0.0


@pytest.mark.parametrize(("fraction", "excess"), [(0.97, 0.0), (0.99, 0.5), (-0.99, 0.5), (1.0, 1.0), (-1.01, 1.5)])
def test_joints_near_either_limit_cost_in_proportion(
    task: Task, humanoid: RobotModel, fraction: float, excess: float
) -> None:
    lower, upper = humanoid.joint_limits.T
    rewards = []
    for name in (None, "right_hip_y", "left_ankle_y"):
        joints = np.array(middle_of_joints(humanoid))
        joint = [n == name for n in humanoid.joint_names]
        joints[joint] += fraction * (upper - lower)[joint] / 2
        state = state_of([*UPRIGHT, *joints.tolist()], [0.0] * 27, [0.0] * 21)
        observed = task.observe(state)
        rewards.append(paid(task.reward(state.qpos, state, observed, torch.tensor([False]))))
    assert rewards[0] == pytest.approx(2.6, abs=1e-6)
    assert rewards[0] - rewards[1] == pytest.approx(0.25 * excess, abs=1e-4)
    assert rewards[0] - rewards[2] == pytest.approx(0.25 * excess * 22.5 / 135, abs=1e-4)


@pytest.mark.parametrize(("height", "ends"), [(0.81, False), (0.79, True)])
def test_a_fallen_humanoid_gets_the_death_cost_alone(
    task: Task, humanoid: RobotModel, height: float, ends: bool
) -> None:
    state = state_of([0.0, 0.0, height, *UPRIGHT[3:], *middle_of_joints(humanoid)], [1.0] * 27, [1.0] * 21)
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    assert bool(ended) is ends
    assert (paid(task.reward(state.qpos - 1.0, state, observed, ended)) == -1.0) is ends


def test_observation_layout_and_frames(task: Task, humanoid: RobotModel) -> None:
    """All 108 columns of a random state against scipy's rotations and the table of Isaac Gym's observation."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(random_state=0)
    x, y, z, w = rotation.as_quat()
    limits = humanoid.joint_limits
    joints = rng.uniform(*limits.T)
    position, velocity, action = rng.normal(size=3), rng.normal(size=27), rng.uniform(-1, 1, 21)
    wrench = 100 * rng.normal(size=(2, 6))
    state = hand_made_state([*position, w, x, y, z, *joints], velocity, action, wrench)
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)

    yaw, _, roll = rotation.as_euler("ZYX")
    target = np.array([1000.0, 0.0]) - position[:2]
    bearing = math.atan2(target[1], target[0]) - yaw
    matrix = rotation.as_matrix()
    expected = np.concatenate(
        [
            [position[2]],
            rotation.inv().apply(velocity[:3]),
            0.25 * velocity[3:6],
            [yaw, roll, (bearing + math.pi) % (2 * math.pi) - math.pi, matrix[2, 2]],
            [matrix[:2, 0] @ target / np.linalg.norm(target)],
            2 * (joints - limits[:, 0]) / (limits[:, 1] - limits[:, 0]) - 1,
            0.1 * velocity[6:],
            0.01 * action * gears(humanoid),
            0.01 * rotation.inv().apply(wrench.reshape(4, 3)).ravel(),
            action,
        ]
    )
    assert observation.shape == (1, 108)
    np.testing.assert_allclose(observation.numpy()[0], expected, atol=2e-5)


def test_initial_states_are_valid_and_throw_nothing(task: Task, humanoid: RobotModel) -> None:
    qpos, qvel = task.sample_initial_state(500, torch.Generator().manual_seed(0))
    lower, upper = humanoid.joint_limits.T
    joints = qpos[:, 7:].numpy()
    assert (joints >= lower - 1e-6).all() and (joints <= upper + 1e-6).all()
    assert np.abs(joints).max() <= 0.2 and joints.std(0).min() > 0.05
    assert (qpos[:, 2] == 1.34).all() and (qvel[:, :6] == 0).all()
    assert qvel[:, 6:].abs().max() <= 0.1
    model = humanoid.compile(DT / 4)
    data = mujoco.MjData(model)
    for row in qpos[:50].numpy():
        mujoco.mj_resetData(model, data)
        data.qpos[:] = row
        mujoco.mj_step(model, data, 12)
        # A toe may begin some centimetres below the ground, as in Isaac Gym; that must not throw the robot up. Free
        # fall makes -0.49 m/s.
        assert -0.8 < data.qvel[2] < 0.0


def make_pool(compose_config: Callable[..., DictConfig], side: str, n: int) -> EnvironmentPool:
    experiment = Experiment(compose_config("task=Humanoid", "simulator/low=mujoco_reduced"))
    return experiment.make_pool({"low": experiment.low_engines[0], "high": experiment.high_engine}[side], n, seed=3)


@pytest.mark.parametrize("side", ["low", "high"])
def test_without_torque_it_lands_on_its_feet_and_falls(compose_config: Callable[..., DictConfig], side: str) -> None:
    pool = make_pool(compose_config, side, 16)
    weight = 40.844 * 9.81
    ends, forces = [], []
    for _ in range(120):
        pool.step(torch.zeros(16, 21))
        forces.append(pool.simulator.contact_wrench[:, :, 2].sum(1).mean().item())
        ends.append(pool.terminated.float().sum().item())
    statistics = pool.take_statistics()
    assert statistics.failures == 0
    assert sum(ends[:20]) == 0 and sum(ends) >= 16  # springs alone do not hold it up, but it does not fall at once
    assert max(forces) > weight  # the landing


def test_the_same_seed_gives_the_same_trajectory(compose_config: Callable[..., DictConfig]) -> None:
    actions = torch.randn(40, 16, 21, generator=torch.Generator().manual_seed(0))
    seen = []
    for _ in range(2):
        pool = make_pool(compose_config, "high", 16)
        for action in actions:
            pool.step(action)
        seen.append((pool.observations.clone(), pool.reward.clone()))
    assert torch.equal(seen[0][0], seen[1][0]) and torch.equal(seen[0][1], seen[1][1])


@pytest.mark.slow
def test_training_steps_both_simulators_and_stays_finite(compose_config: Callable[..., DictConfig]) -> None:
    small = ("num_envs=16", "train.params.config.minibatch_size=64", "simulator/low=mujoco_reduced")
    trainer = Trainer(Experiment(compose_config("task=Humanoid", *small)))
    for _ in range(2):
        metrics = trainer.iterate()
    trainer.close()
    assert metrics["seconds_per_env_step/low"] > 0 and metrics["seconds_per_env_step/high"] > 0
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"measure_speed/low", "measure_speed/high"} <= metrics.keys()
