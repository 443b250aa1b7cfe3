"""Quadcopter's terms, reward and ends on hand-made states, and its physics against closed forms."""

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
from dualfid_robot.envs.task import Task
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.registry import make_simulator
from dualfid_robot.train.trainer import Trainer

DT = 0.01
WEIGHT = 0.2515 * 9.81  # N, from the asset's published dimensions and densities
LEVEL = [1.0, 0.0, 0.0, 0.0]
FIDELITIES = (
    {"engine": "mujoco", "substeps": 4, "threads": 1},
    {"engine": "mujoco", "substeps": 2, "cone": "pyramidal", "contacts": "feet", "threads": 1},
)


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return RobotModel(ASSETS / "quadcopter.xml", ("chassis",))


@pytest.fixture
def task(robot: RobotModel) -> Task:
    return make_task("Quadcopter", {"numEnvs": 1, "episodeLength": 500}, robot, DT)


@pytest.fixture(params=FIDELITIES, ids=("full", "reduced"))
def pool(request: pytest.FixtureRequest, task: Task) -> EnvironmentPool:
    """Two quadcopters that hang level and at rest above the goal."""
    pool = EnvironmentPool(make_simulator(request.param, task.robot, 2, DT, (), "cpu"), task, seed=0)
    put(pool, [0.0, 0.0, 1.0, *LEVEL, *[0.0] * 8])
    return pool


def put(pool: EnvironmentPool, qpos: list[float]) -> None:
    rows = torch.tensor([qpos, qpos])
    pool.simulator.set_state(torch.arange(2), rows, torch.zeros(2, 14))
    pool._controls[:] = pool.task.initial_control(rows)


def thrusts(*forces: float) -> torch.Tensor:
    """The action that takes standing rotors to these thrusts, N, within one step of 0.01 s at 200 N/s."""
    return torch.tensor([[0.0] * 8 + [force / 2.0 for force in forces]]).repeat(2, 1)


HOLD = torch.zeros(2, 12)


def test_masses_are_the_published_ones(robot: RobotModel) -> None:
    chassis = math.pi * 0.1**2 * 0.03 * 50
    rotor = math.pi * 0.04**2 * 0.01 * 1000
    sphere = 4 / 3 * math.pi * 0.01**3 * 200
    mass = {robot.model.body(i).name: robot.model.body_mass[i] for i in range(1, robot.model.nbody)}
    assert mass["chassis"] == pytest.approx(chassis) and mass["rotor_3"] == pytest.approx(rotor)
    assert sum(mass.values()) == pytest.approx(chassis + 4 * (rotor + sphere))
    assert sum(mass.values()) * 9.81 == pytest.approx(WEIGHT, rel=1e-3)


def test_thrust_equal_to_the_weight_hovers(pool: EnvironmentPool) -> None:
    pool.step(thrusts(*[WEIGHT / 4] * 4))
    for _ in range(199):
        pool.step(HOLD)
    assert pool.simulator.qpos[0, 2].item() == pytest.approx(1.0, abs=0.01)
    assert pool.simulator.qpos[0, :2].abs().max() < 1e-3
    assert pool.measured["position_error"][0] < 0.01


def test_without_thrust_it_falls_freely(pool: EnvironmentPool) -> None:
    for _ in range(30):
        pool.step(HOLD)
    assert pool.simulator.qpos[0, 2].item() == pytest.approx(1.0 - 9.81 / 2 * 0.3**2, abs=0.01)
    assert pool.simulator.qvel[0, 2].item() == pytest.approx(-9.81 * 0.3, rel=1e-3)


def test_full_thrust_lifts_with_its_excess_over_the_weight(pool: EnvironmentPool) -> None:
    for _ in range(20):
        pool.step(thrusts(2.0, 2.0, 2.0, 2.0))
    assert pool.simulator.qvel[0, 2].item() == pytest.approx((8.0 / 0.2515 - 9.81) * 0.2, rel=0.01)


def test_thrust_on_one_side_turns_it_about_the_other(pool: EnvironmentPool) -> None:
    """More thrust at y > 0 (arms at 45 and 135 degrees) turns it about +x; on one diagonal it only lifts."""
    pool.step(thrusts(0.7, 0.7, 0.5, 0.5))
    assert pool.simulator.qvel[0, 3] > 0.05 and pool.simulator.qvel[0, 4].abs() < 1e-4
    put(pool, [0.0, 0.0, 1.0, *LEVEL, *[0.0] * 8])
    pool.step(thrusts(0.8, 0.4, 0.8, 0.4))
    assert pool.simulator.qvel[0, 3:5].abs().max() < 1e-3


def test_rolled_rotors_make_it_spin(pool: EnvironmentPool) -> None:
    """All rotors rolled by 0.2 rad push tangentially, against the turn of their arms: torque about z is
    -4 F sin(0.2) r, r = 0.145 m."""
    put(pool, [0.0, 0.0, 1.0, *LEVEL, *[0.0, 0.2] * 4])
    force = 0.7
    pool.step(thrusts(force, force, force, force))
    for _ in range(9):
        pool.step(HOLD)
    data = mujoco.MjData(pool.task.robot.model)
    data.qpos[:] = [0.0, 0.0, 1.0, *LEVEL, *[0.0, 0.2] * 4]
    mujoco.mj_forward(pool.task.robot.model, data)
    inertia = np.zeros((14, 14))
    mujoco.mj_fullM(pool.task.robot.model, data, inertia)
    expected = -4 * force * math.sin(0.2) * 0.145 / inertia[5, 5] * 0.1
    assert pool.simulator.qvel[0, 5].item() == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("joint", [0, 1])
def test_tilts_follow_their_targets(pool: EnvironmentPool, joint: int) -> None:
    """8 pi rad/s at full action: 0.251 rad in a step; the target stops at 30 degrees."""
    action = HOLD.clone()
    action[:, joint] = 1.0
    pool.step(action)
    assert pool._controls[0, joint].item() == pytest.approx(8 * math.pi * DT)
    for _ in range(4):
        pool.step(action)
    assert pool._controls[0, joint].item() == pytest.approx(math.radians(30))
    for _ in range(10):
        pool.step(HOLD)
    assert pool.simulator.qpos[0, 7 + joint].item() == pytest.approx(math.radians(30), abs=0.02)


def test_thrusts_stay_between_zero_and_two_newtons(pool: EnvironmentPool) -> None:
    pool.step(thrusts(-1.0, 1.0, 2.0, 2.0))
    assert pool._controls[0, 8:].tolist() == [0.0, 1.0, 2.0, 2.0]
    pool.step(thrusts(0.5, -0.5, 1.0, -2.0))
    assert pool._controls[0, 8:].tolist() == pytest.approx([0.5, 0.5, 2.0, 0.0])


def test_an_episode_begins_with_held_tilts_and_standing_rotors(task: Task) -> None:
    qpos, qvel = task.sample_initial_state(2000, torch.Generator().manual_seed(0))
    assert (qvel == 0).all()
    assert qpos[:, :2].abs().max() <= 1.5 and qpos[:, :2].abs().max() > 1.45
    assert (
        qpos[:, 2].min() >= 0.8
        and qpos[:, 2].max() <= 2.5
        and qpos[:, 2].std() == pytest.approx(1.7 / 12**0.5, rel=0.05)
    )
    assert qpos[:, 7:].abs().max() <= 0.2
    control = task.initial_control(qpos)
    assert torch.equal(control[:, :8], qpos[:, 7:]) and (control[:, 8:] == 0).all()
    state = hand_made_state(qpos[0].tolist(), [0.0] * 14, [0.0] * 12)
    assert not task.terminated(state, task.observe(state))


def test_reward(task: Task) -> None:
    """1 m from the goal, tilted by 60 degrees, spinning at 2 rad/s: 1/2 (1 + 1/(1 + 0.25) + 1/5)."""
    quaternion = [math.cos(math.pi / 6), math.sin(math.pi / 6), 0.0, 0.0]
    # a spin of 2 rad/s about the world's z axis, in the body's frame
    spin = Rotation.from_euler("x", 60, degrees=True).inv().apply([0.0, 0.0, 2.0])
    state = hand_made_state([0.6, 0.8, 1.0, *quaternion, *[0.0] * 8], [0.0, 0.0, 0.0, *spin, *[0.0] * 8], [0.0] * 12)
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    assert not ended
    assert paid(task.reward(state.qpos, state, observed, ended)) == pytest.approx(0.5 * (1 + 0.8 + 0.2), abs=1e-6)
    assert task.measure(state, observed)["position_error"].item() == pytest.approx(1.0)


def test_reward_at_the_goal_is_three(task: Task) -> None:
    state = hand_made_state([0.0, 0.0, 1.0, *LEVEL, *[0.0] * 8], [0.0] * 14, [0.0] * 12)
    observed = task.observe(state)
    assert paid(task.reward(state.qpos, state, observed, torch.tensor([False]))) == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("position", "ends"),
    [((0.0, 0.0, 0.31), False), ((0.0, 0.0, 0.29), True), ((2.9, 0.0, 1.0), False), ((1.8, 1.8, 2.7), True)],
)
def test_ends(task: Task, position: tuple[float, float, float], ends: bool) -> None:
    state = hand_made_state([*position, *LEVEL, *[0.0] * 8], [0.0] * 14, [0.0] * 12)
    assert bool(task.terminated(state, task.observe(state))) is ends


def test_observation_layout_and_frames(task: Task) -> None:
    """All 21 columns of a random state against scipy's rotations and the table of Isaac Gym's observation."""
    rng = np.random.default_rng(1)
    rotation = Rotation.random(random_state=1)
    x, y, z, w = rotation.as_quat()
    position, velocity, tilts = rng.normal(size=3), rng.normal(size=14), rng.uniform(-0.5, 0.5, 8)
    state = hand_made_state([*position, w, x, y, z, *tilts], velocity, [0.0] * 12)
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)
    expected = np.concatenate(
        [
            (np.array([0.0, 0.0, 1.0]) - position) / 3,
            [w, x, y, z],
            velocity[:3] / 2,
            rotation.apply(velocity[3:6]) / math.pi,
            tilts,
        ]
    )
    assert observation.shape == (1, 21) and task.num_actions == 12
    np.testing.assert_allclose(observation.numpy()[0], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_trajectory(task: Task) -> None:
    def trajectory() -> torch.Tensor:
        pool = EnvironmentPool(make_simulator(FIDELITIES[0], task.robot, 8, DT, (), "cpu"), task, seed=5)
        actions = torch.rand(60, 8, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return torch.stack([(pool.step(action), pool.observations.clone())[1] for action in actions])

    assert torch.equal(trajectory(), trajectory())


def test_both_fidelities_agree_for_a_while(task: Task) -> None:
    """In the first 0.3 s of random flight the engines part by less than a tenth of the way flown."""
    pools = [EnvironmentPool(make_simulator(each, task.robot, 16, DT, (), "cpu"), task, seed=5) for each in FIDELITIES]
    start = pools[0].simulator.qpos[:, :3].clone()
    actions = torch.rand(30, 16, 12, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for action in actions:
        for pool in pools:
            pool.step(action)
    full, reduced = (pool.simulator.qpos[:, :3] for pool in pools)
    assert (full - reduced).norm(dim=1).mean() < 0.1 * (full - start).norm(dim=1).mean()


@pytest.mark.slow
def test_training_runs_in_both_fidelities(compose_config: Callable[..., DictConfig]) -> None:
    small = ("num_envs=64", "train.params.config.minibatch_size=512", "simulator/low=mujoco_reduced")
    trainer = Trainer(Experiment(compose_config("task=Quadcopter", *small)))
    for _ in range(2):
        metrics = trainer.iterate()
    trainer.close()
    assert metrics["allocation/n_low"] > 0 and metrics["allocation/n_high"] > 0
    assert metrics["failures/low"] == metrics["failures/high"] == 0
    assert 0 < metrics["measure_position_error/low"] < 3 and 0 < metrics["measure_position_error/high"] < 3
    assert all(math.isfinite(metrics[key]) for key in ("policy_loss/low", "policy_loss/high", "value_loss/high"))
