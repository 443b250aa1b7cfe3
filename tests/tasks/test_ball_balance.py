"""BallBalance's terms, reward and ends on hand-made states, and its physics against closed forms."""

from __future__ import annotations

import math
from collections.abc import Callable

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
from dualfid_robot.simulators.registry import make_simulator
from dualfid_robot.train.trainer import Trainer

DT = 0.01
TRAY_HEIGHT = 0.36 * math.sqrt(2) + 2 * 0.02 + 0.01
SURFACE = 0.01 + 0.1  # m, of the resting ball's centre above the tray's
BALL_WEIGHT = 4 / 3 * math.pi * 0.1**3 * 200 * 9.81
FIDELITIES = (
    {"engine": "mujoco", "substeps": 8, "threads": 1},
    {"engine": "mujoco", "substeps": 2, "cone": "pyramidal", "iterations": 10, "contacts": "feet", "threads": 1},
)
AWAY = [3.0, 0.0, 0.1]
"""A place where the ball lies on the ground and touches nothing else."""


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return RobotModel(ASSETS / "ball_balance.xml", ("tray", "ball"))


@pytest.fixture
def task(robot: RobotModel) -> Task:
    return make_task("BallBalance", {"numEnvs": 1, "episodeLength": 500, "actionSpeedScale": 20.0}, robot, DT)


class Stage:
    """One tray in an engine, without episodes."""

    def __init__(self, task: Task, engine: dict[str, object]) -> None:
        self.simulator = make_simulator(engine, task.robot, 1, DT, task.contact_bodies, "cpu")
        self.control = torch.zeros(1, 3)

    def put_ball(self, position: list[float], velocity: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> None:
        qpos, qvel = self.simulator.qpos.clone(), self.simulator.qvel.clone()
        qpos[0, 13:] = torch.tensor([*position, 1.0, 0.0, 0.0, 0.0])
        qvel[0, 12:] = torch.tensor([*velocity, 0.0, 0.0, 0.0])
        self.simulator.set_state(torch.tensor([0]), qpos, qvel)

    def run(self, steps: int) -> None:
        for _ in range(steps):
            self.simulator.step(self.control, 1)

    @property
    def tray_axes(self) -> np.ndarray:
        w, x, y, z = self.simulator.qpos[0, 3:7].tolist()
        return Rotation.from_quat([x, y, z, w]).as_matrix()


@pytest.fixture(params=FIDELITIES, ids=("full", "reduced"))
def stage(request: pytest.FixtureRequest, task: Task) -> Stage:
    return Stage(task, request.param)


def test_masses_are_the_published_ones(robot: RobotModel) -> None:
    mass = {robot.model.body(i).name: robot.model.body_mass[i] for i in range(1, robot.model.nbody)}
    segment = math.pi * 0.02**2 * 0.36 * 1000 + 4 / 3 * math.pi * 0.02**3 * 1000
    assert mass["tray"] == pytest.approx(math.pi * 0.5**2 * 0.02 * 100)
    assert mass["lower_leg_1"] == pytest.approx(segment) and mass["upper_leg_2"] == pytest.approx(segment)
    assert mass["ball"] * 9.81 == pytest.approx(BALL_WEIGHT)
    assert robot.model.qpos0[2] == pytest.approx(TRAY_HEIGHT, abs=1e-6)


def test_without_actions_the_tray_rests_level(stage: Stage) -> None:
    stage.put_ball(AWAY)
    for _ in range(500):
        stage.run(1)
        assert stage.simulator.qpos[0, 2].item() == pytest.approx(TRAY_HEIGHT, abs=0.003)
        assert stage.tray_axes[2, 2] > 1 - 1e-6
    assert stage.simulator.qvel[0, :12].abs().max() < 1e-4
    assert stage.simulator.contact_wrench.abs().max() == 0.0


def test_legs_of_equal_length_lift_the_tray_level(stage: Stage) -> None:
    """Hip and foot are 2 · 0.36 m · sin((90° + knee) / 2) apart, and vertically so."""
    stage.put_ball(AWAY)
    for knee in (0.3, 0.6, -0.4):
        stage.control[:] = knee
        stage.run(150)
        expected = 0.05 + 0.72 * math.sin(math.pi / 4 + knee / 2)
        assert stage.simulator.qpos[0, 2].item() == pytest.approx(expected, abs=0.004)
        assert stage.tray_axes[2, 2] > 1 - 1e-6


def test_a_longer_leg_tilts_the_tray_away_from_it(stage: Stage) -> None:
    stage.put_ball(AWAY)
    stage.control[:] = torch.tensor([0.4, 0.0, 0.0])
    stage.run(150)
    normal = stage.tray_axes[:, 2]
    assert normal[0] < -0.1 and abs(normal[1]) < 1e-3


@pytest.mark.parametrize("knee", [0.2, 0.5])
def test_the_ball_rolls_down_a_tilted_tray(stage: Stage, knee: float) -> None:
    """A solid sphere that rolls without slipping accelerates by 5/7 g sin(tilt)."""
    stage.put_ball(AWAY)
    stage.control[:] = torch.tensor([knee, 0.0, 0.0])
    stage.run(150)
    axes = stage.tray_axes
    uphill = stage.simulator.qpos[0, :3].numpy() + axes @ [0.2, 0.0, SURFACE]
    stage.put_ball(uphill.tolist())
    stage.run(15)
    before = stage.simulator.qvel[0, 12:15].norm().item()
    stage.run(20)
    after = stage.simulator.qvel[0, 12:15].norm().item()
    tilt = math.acos(stage.tray_axes[2, 2])
    assert tilt > 0.07
    assert (after - before) / 0.2 == pytest.approx(5 / 7 * 9.81 * math.sin(tilt), rel=0.01)
    assert after == pytest.approx(0.1 * stage.simulator.qvel[0, 15:].norm().item(), rel=0.01)


def test_the_tray_carries_the_ball(stage: Stage, task: Task) -> None:
    """At rest, 0.2 m from the centre towards leg 0: the ball's weight, and its torques about the hips."""
    stage.put_ball([0.2, 0.0, TRAY_HEIGHT + SURFACE])
    stage.run(5)
    # the tray leans by less than a milliradian in that time, so that the ball has hardly rolled
    wrench = torch.zeros(1, 6)
    for _ in range(20):
        stage.run(1)
        wrench += stage.simulator.contact_wrench[0] / 20
    place = stage.simulator.qpos[0, 13:15].tolist()
    state = hand_made_state(stage.simulator.qpos[0], stage.simulator.qvel[0], [0.0] * 3, wrench.tolist())
    observed = task.observe(state)
    assert observed["tray_force"][0].tolist() == pytest.approx([0.0, 0.0, -BALL_WEIGHT], abs=0.3)
    for torque, angle in zip(observed["hip_torque"].view(3, 3), (0, 120, 240), strict=True):
        hip = 0.4 * np.array([math.cos(math.radians(angle)), math.sin(math.radians(angle)), 0.0])
        expected = np.cross([*place, 0.0] - hip, [0.0, 0.0, -BALL_WEIGHT])
        np.testing.assert_allclose(torque.numpy(), expected, atol=0.1)


def test_the_tray_survives_the_hardest_fall_and_keeps_the_ball(stage: Stage) -> None:
    """From 2 m at 5 m/s: it lands at 7.1 m/s, does not pass through, and lies still on the tray within a second."""
    stage.put_ball([0.0, 0.0, 2.0], (0.0, 0.0, -5.0))
    lowest = math.inf
    for _ in range(100):
        stage.run(1)
        above = stage.simulator.qpos[0, 15] - stage.simulator.qpos[0, 2]
        lowest = min(lowest, above.item())
    assert lowest > 0.5 * SURFACE
    assert above.item() == pytest.approx(SURFACE, abs=0.002)
    assert stage.simulator.qvel[0, 12:15].norm() < 0.02


@pytest.mark.parametrize("engine", FIDELITIES, ids=("full", "reduced"))
def test_feet_stay_where_they_are_pinned(task: Task, engine: dict[str, object]) -> None:
    """Under random actions of full size no foot leaves its place by more than 2 cm and no world fails."""
    pool = EnvironmentPool(make_simulator(engine, task.robot, 16, DT, task.contact_bodies, "cpu"), task, seed=2)
    generator = torch.Generator().manual_seed(3)
    angles = np.radians([0, 120, 240])
    pins = np.stack([0.4 * np.cos(angles), 0.4 * np.sin(angles), np.full(3, 0.02)], 1)
    furthest = 0.0
    for _ in range(100):
        pool.step(torch.rand(16, 3, generator=generator) * 2 - 1)
        furthest = max(furthest, np.abs(feet(pool.simulator.qpos[0].numpy()) - pins).max())
    assert furthest < 0.02
    assert pool.take_statistics().failures == 0


def feet(qpos: np.ndarray) -> np.ndarray:
    """Feet (3, 3) by elementary trigonometry: in the plane of each leg, two segments of 0.36 m."""
    w, x, y, z = qpos[3:7]
    tray = Rotation.from_quat([x, y, z, w])
    places = []
    for leg in range(3):
        hip, knee = qpos[7 + 2 * leg], qpos[8 + 2 * leg]
        upper = math.radians(225) - hip  # direction in the plane (outwards, up); a positive turn is clockwise there
        lower = math.radians(315) - hip - knee
        outwards = 0.4 + 0.36 * (math.cos(upper) + math.cos(lower))
        up = -0.03 + 0.36 * (math.sin(upper) + math.sin(lower))
        angle = math.radians(120 * leg)
        places.append(tray.apply([outwards * math.cos(angle), outwards * math.sin(angle), up]) + qpos[:3])
    return np.array(places)


def test_initial_states_are_isaac_gyms(task: Task) -> None:
    qpos, qvel = task.sample_initial_state(4000, torch.Generator().manual_seed(0))
    place, velocity = qpos[:, 13:16], qvel[:, 12:15]
    distance, speed = place[:, :2].norm(dim=1), velocity[:, :2].norm(dim=1)
    assert distance.min() >= 0.001 and distance.max() <= 0.5 and distance.mean() == pytest.approx(0.25, abs=0.01)
    assert place[:, 2].min() >= 1.0 and place[:, 2].max() <= 2.0
    assert (velocity[:, 2] == -5.0).all()
    assert (speed <= 5.0 * distance / 0.499).all() and speed.max() > 4.0
    assert ((place[:, :2] * velocity[:, :2]).sum(1) <= 0).all()  # towards the axis
    torch.testing.assert_close((place[:, :2] * velocity[:, :2]).sum(1), -distance * speed)
    assert (qvel[:, :12] == 0).all() and (qvel[:, 15:] == 0).all()
    torch.testing.assert_close(qpos[:, 7:13], torch.zeros(4000, 6))


def test_balls_start_where_a_tray_can_catch_them(task: Task) -> None:
    """In free flight all but one in a thousand reach the resting tray's plane within its rim, after 0.06 to 0.22 s."""
    qpos, qvel = task.sample_initial_state(4000, torch.Generator().manual_seed(0))
    drop = qpos[:, 15] - (TRAY_HEIGHT + SURFACE)
    flight = (torch.sqrt(25.0 + 2 * 9.81 * drop) - 5.0) / 9.81
    landing = qpos[:, 13:15] + qvel[:, 12:14] * flight[:, None]
    assert flight.min() > 0.06 and flight.max() < 0.22
    assert (landing.norm(dim=1) > 0.5).float().mean() < 1e-3


def test_targets_are_cumulative_and_limited(task: Task) -> None:
    """20 rad/s at full action: 0.2 rad in a step of 0.01 s, from -70 to 90 degrees."""
    control = task.initial_control(torch.zeros(1, 20))
    assert control.tolist() == [[0.0, 0.0, 0.0]]
    control = task.control(torch.tensor([[1.0, -0.5, 0.0]]), control)
    assert control[0].tolist() == pytest.approx([0.2, -0.1, 0.0])
    for _ in range(20):
        control = task.control(torch.tensor([[1.0, -1.0, 0.0]]), control)
    assert control[0].tolist() == pytest.approx([math.pi / 2, -math.radians(70), 0.0])


def test_reward(task: Task) -> None:
    """Distances from (0, 0, 0.7) of 0 and 0.5 m, speeds of 0 and 3 m/s."""
    for place, velocity, expected in (
        ([0.0, 0.0, 0.7], [0.0, 0.0, 0.0], 1.0),
        ([0.3, 0.0, 1.1], [0.0, 0.0, 0.0], 1 / 1.5),
        ([0.3, 0.0, 1.1], [2.0, 1.0, -2.0], 1 / 1.5 / 4.0),
    ):
        state = ball_state(place, velocity)
        observed = task.observe(state)
        ended = task.terminated(state, observed)
        assert not ended
        assert paid(task.reward(state.qpos, state, observed, ended)) == pytest.approx(expected)
        assert task.measure(state, observed)["ball_distance"].item() == pytest.approx(math.dist(place, [0, 0, 0.7]))


@pytest.mark.parametrize(("height", "ends"), [(0.149, True), (0.151, False)])
def test_ends_when_the_ball_reaches_the_ground(task: Task, height: float, ends: bool) -> None:
    state = ball_state([1.0, 0.0, height], [0.0, 0.0, 0.0])
    assert bool(task.terminated(state, task.observe(state))) is ends


def ball_state(place: list[float], velocity: list[float]) -> State:
    tray = [0.0, 0.0, TRAY_HEIGHT, 1.0, 0.0, 0.0, 0.0, *[0.0] * 6]
    return hand_made_state(
        [*tray, *place, 1.0, 0.0, 0.0, 0.0], [*[0.0] * 12, *velocity, 0.0, 0.0, 0.0], [0.0] * 3, [[0.0] * 6]
    )


def test_observation_layout_and_frames(task: Task) -> None:
    """All 24 columns of a random state, against scipy's rotations."""
    rng = np.random.default_rng(0)
    rotation = Rotation.random(random_state=0)
    x, y, z, w = rotation.as_quat()
    joints, place, velocity = rng.uniform(-0.5, 0.5, 6), rng.normal(size=3), rng.normal(size=18)
    force, torque = rng.normal(size=3), rng.normal(size=3)
    qpos = [*rng.normal(size=3), w, x, y, z, *joints, *place, 1.0, 0.0, 0.0, 0.0]
    state = hand_made_state(qpos, velocity, [0.0] * 3, [[*force, *torque]])
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state), observation, first=True)
    local_force, local_torque = rotation.inv().apply(force), rotation.inv().apply(torque)
    hips = [0.4 * np.array([math.cos(a), math.sin(a), 0.0]) for a in np.radians([0, 120, 240])]
    expected = np.concatenate(
        [
            joints[1::2],
            velocity[[7, 9, 11]],
            place,
            velocity[12:15],
            local_force / 20,
            *[(local_torque - np.cross(hip, local_force)) / 20 for hip in hips],
        ]
    )
    assert observation.shape == (1, 24) and task.num_actions == 3
    np.testing.assert_allclose(observation.numpy()[0], expected, atol=1e-6)


def test_the_same_seed_gives_the_same_trajectory(task: Task) -> None:
    def trajectory() -> torch.Tensor:
        simulator = make_simulator(FIDELITIES[0], task.robot, 8, DT, task.contact_bodies, "cpu")
        pool = EnvironmentPool(simulator, task, seed=5)
        actions = torch.rand(60, 8, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
        return torch.stack([(pool.step(action), pool.observations.clone())[1] for action in actions])

    assert torch.equal(trajectory(), trajectory())


@pytest.mark.slow
def test_training_runs_in_both_fidelities(compose_config: Callable[..., DictConfig]) -> None:
    small = ("num_envs=64", "train.params.config.minibatch_size=512", "simulator/low=mujoco_reduced")
    trainer = Trainer(Experiment(compose_config("task=BallBalance", *small)))
    for _ in range(2):
        metrics = trainer.iterate()
    trainer.close()
    assert metrics["allocation/n_low"] > 0 and metrics["allocation/n_high"] > 0
    assert metrics["failures/low"] == metrics["failures/high"] == 0
    assert 0 < metrics["measure_ball_distance/low"] < 2 and 0 < metrics["measure_ball_distance/high"] < 2
    assert all(math.isfinite(metrics[key]) for key in ("policy_loss/low", "policy_loss/high", "value_loss/high"))
