"""AnymalTerrain: its height field against MuJoCo's rays, its curriculum and its reward against numbers made by hand."""

from __future__ import annotations

import math
import runpy
from collections.abc import Callable, Sequence

import imageio.v3 as imageio
import mujoco
import numpy as np
import pytest
import torch
from omegaconf import DictConfig
from states import hand_made_state, paid
from trajectories import random_trajectory

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.height_field import HeightField
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import State, Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.train.trainer import Trainer

DT = 0.02
DEFAULT = [0.03, 0.4, -0.8, 0.03, -0.4, 0.8, -0.03, 0.4, -0.8, -0.03, -0.4, 0.8]
SLOPE, ROUGH, UP, DOWN, BLOCKS = range(5)
SMALL = (
    "task=AnymalTerrain",
    "num_envs=32",
    "train.params.config.minibatch_size=192",
    "simulator/low=mujoco_reduced",
    "simulator/high=mujoco",
)
EVERYWHERE = ("task.env.terrain.maxInitMapLevel=9", "task.env.terrain.terrainProportions=[1,1,1,1,1]")


@pytest.fixture(scope="module")
def robot() -> RobotModel:
    return RobotModel(ASSETS / "anymal_terrain.xml")


@pytest.fixture
def task(robot: RobotModel) -> Task:
    return make_task("AnymalTerrain", {"numEnvs": 1, "episodeLength": 1000}, robot, DT)


def middle(level: int, kind: int) -> tuple[float, float]:
    """Of a cell, m: cells of 8 m around the origin."""
    return 8.0 * (level - 4.5), 8.0 * (kind - 2)


def state_at(
    x: float,
    y: float,
    z: float = 0.5,
    yaw: float = 0.0,
    level: int = 0,
    kind: int = 0,
    command: Sequence[float] = (0.0, 0.0, 0.0),
    step: int = 1,
    wrench: np.ndarray | None = None,
    air_time: Sequence[float] = (0.0,) * 4,
    velocity: Sequence[float] = (0.0,) * 18,
    action: Sequence[float] = (0.0,) * 12,
) -> State:
    memory = {
        "command": command,
        "terrain_level": [level],
        "terrain_kind": [kind],
        "previous_action": [0.0] * 12,
        "previous_joint_velocity": [0.0] * 12,
        "air_time": air_time,
    }
    qpos = [x, y, z, math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2), *DEFAULT]
    contact = np.zeros((9, 6)) if wrench is None else wrench
    return hand_made_state(qpos, velocity, action, contact.tolist(), control=DEFAULT, step=step, memory=memory)


def test_the_image_is_what_its_script_writes() -> None:
    script = runpy.run_path(str(ASSETS / "anymal_terrain.py"))
    np.testing.assert_array_equal(imageio.imread(ASSETS / "anymal_terrain.png"), script["image"]())


def test_heights_are_those_that_rays_hit(robot: RobotModel) -> None:
    """All over the field and beyond its edge; rays 1 mm off the samples, for along the mesh's edges they may miss."""
    model, data = robot.model, mujoco.MjData(robot.model)
    data.qpos[:3] = (200.0, 200.0, 50.0)  # the robot out of the way
    mujoco.mj_forward(model, data)
    rng = np.random.default_rng(0)
    x = np.append(-40.75 + 0.1 * rng.integers(1, 815, 300), [41.5, -60.0])
    y = np.append(-20.75 + 0.1 * rng.integers(1, 415, 300), [0.0, 30.0])
    down, geom = np.array([0.0, 0.0, -1.0]), np.zeros(1, np.int32)
    hit = [
        5.0 - mujoco.mj_ray(model, data, np.array([a + 1e-3, b + 1e-3, 5.0]), down, None, 1, -1, geom)
        for a, b in zip(x, y, strict=True)
    ]
    field = HeightField(robot, "terrain", "cpu")
    beside = torch.from_numpy(rng.uniform(-0.04, 0.04, (2, len(x))))
    found = field.height(torch.from_numpy(x) + beside[0], torch.from_numpy(y) + beside[1])
    np.testing.assert_allclose(found, hit, atol=4e-3)
    assert np.ptp(hit) > 0.5


@pytest.mark.parametrize("depth", [0.005, 0.02, 0.04])
def test_flat_ground_pushes_feet_upwards(robot: RobotModel, depth: float) -> None:
    """All over a flat cell, however far a foot of 0.03 m has sunk: its deepest contact points upwards. Not so with
    MuJoCo's native collision algorithm."""
    model, data = robot.model, mujoco.MjData(robot.model)
    feet = [model.geom(f"{leg}_foot").id for leg in ("LF", "LH", "RF", "RH")]
    rng = np.random.default_rng(0)
    x, y = middle(0, SLOPE)
    for _ in range(50):
        data.qpos[:] = [x + rng.uniform(-2, 2), y + rng.uniform(-2, 2), 1.0, 1.0, 0.0, 0.0, 0.0, *DEFAULT]
        mujoco.mj_kinematics(model, data)
        data.qpos[2] += 0.03 - depth - data.geom_xpos[feet, 2].min()
        mujoco.mj_forward(model, data)
        for foot in feet:
            of_foot = (data.contact.geom == foot).any(1)
            deepest = data.contact.dist[of_foot].argmin()
            assert abs(data.contact.frame[of_foot][deepest, 2]) > 0.99
            assert data.contact.dist[of_foot][deepest] == pytest.approx(-depth, abs=5e-3)


@pytest.mark.parametrize("level", [0, 4, 9])
def test_kinds_of_terrain_have_their_measures(robot: RobotModel, level: int) -> None:
    field = HeightField(robot, "terrain", "cpu")

    def across(kind: int) -> np.ndarray:
        """Heights along x through the middle of a cell, from its edge to its platform."""
        x, y = middle(level, kind)
        along = x - 3.95 + 0.1 * torch.arange(38)
        return field.height(along, torch.full_like(along, y + 0.05)).numpy()

    step = 0.05 + 0.175 * level / 10
    for kind, sign in ((UP, -1), (DOWN, 1)):
        steps = np.diff(across(kind))
        steps = steps[np.abs(steps) > 1e-4] * sign
        assert len(steps) == 7
        np.testing.assert_allclose(steps, step, atol=0.5 * 0.0125 + 1e-5)
    assert across(SLOPE)[-1] == pytest.approx(2.5 * 0.4 * level / 10, abs=0.0125)
    assert np.abs(np.diff(across(ROUGH))).max() > 0.02
    assert across(BLOCKS)[-1] == 0.0


def test_scan_turns_with_the_heading(task: Task) -> None:
    """Before a staircase that leads down towards x: ahead is lower than behind, whichever way that is."""
    x, y = middle(5, DOWN)
    lowest_behind = {}
    for yaw, ahead in ((0.0, 0), (math.pi, 13)):
        scan = task.observe(state_at(x + 2.5, y, 1.4, yaw))["height_scan"].view(14, 10)
        lowest_behind[yaw] = scan[ahead].mean().item() - scan[13 - ahead].mean().item()
    # 1.6 m are five steps of 0.1375 m
    assert lowest_behind[0.0] == pytest.approx(-5 * 0.1375, abs=0.07)
    assert lowest_behind[math.pi] == pytest.approx(-5 * 0.1375, abs=0.07)
    sideways = task.observe(state_at(x + 2.5, y, 1.4, math.pi / 2))["height_scan"].view(14, 10)
    assert (sideways[:, 0] - sideways[:, 9]).mean().item() > 0.2  # -y of the base is towards x, down


def test_observation_layout(task: Task) -> None:
    assert task.num_observations - task.num_privileged == 188
    x, y = middle(0, BLOCKS)
    observation = torch.zeros(1, task.num_observations)
    task.write_observation(task.observe(state_at(x, y, 0.6)), observation, first=True)
    # over the flat platform the base is 0.1 m above its nominal height of 0.5 m: 5 · 0.1
    np.testing.assert_allclose(observation[0, 48:188], 0.5, atol=1e-4)


def test_a_heading_error_commands_a_turn(task: Task) -> None:
    for heading, yaw, expected in ((1.0, 0.4, 0.3), (3.1, -3.1, -0.5 * (2 * math.pi - 6.2)), (0.0, 2.5, -1.0)):
        observed = task.observe(state_at(0.0, 0.0, yaw=yaw, command=(0.0, 0.0, heading)))
        assert observed["yaw_command"].item() == pytest.approx(expected, abs=1e-5)


def test_reward_on_a_hand_made_state(task: Task) -> None:
    wrench = np.zeros((9, 6))
    wrench[2, 0] = 5.0  # a thigh
    wrench[5, 2] = 200.0  # LF has just landed
    velocity = [0.6, 0.0, 0.2, 0.3, 0.4, 0.0] + [0.0] * 11 + [2.0]
    state = state_at(
        0.0,
        0.0,
        command=(1.0, 0.3, 0.0),
        wrench=wrench,
        air_time=(0.7, 0.1, 0.0, 0.0),
        velocity=velocity,
        action=[0.5] + [0.0] * 11,
    )
    observed = task.observe(state)
    ended = task.terminated(state, observed)
    tracking = math.exp(-(0.4**2 + 0.3**2) / 0.25) + 0.5
    penalties = 4.0 * 0.2**2 + 0.05 * (0.3**2 + 0.4**2) + 2e-5 * 4.0**2 + 0.0005 * 2.0**2 + 0.01 * 0.5**2 + 0.25
    expected = tracking - penalties + (0.7 - 0.5)
    assert not ended
    assert paid(task.reward(state.qpos, state, observed, ended)) == pytest.approx(expected * DT, rel=1e-4)
    task.advance(state, observed, torch.Generator())
    np.testing.assert_allclose(state.memory["air_time"], [[0.0, 0.12, 0.02, 0.02]], atol=1e-6)
    np.testing.assert_allclose(state.memory["previous_action"], [[0.5] + [0.0] * 11])
    np.testing.assert_allclose(state.memory["previous_joint_velocity"], [[0.0] * 11 + [2.0]])


def test_only_the_base_must_not_touch(task: Task) -> None:
    for body, ends in ((0, True), (1, False), (5, False)):
        wrench = np.zeros((9, 6))
        wrench[body, 2] = 50.0
        state = state_at(0.0, 0.0, wrench=wrench)
        assert task.terminated(state, task.observe(state)).item() is ends


@pytest.mark.parametrize(
    ("walked", "speed", "before", "after"),
    [
        (4.5, 0.5, 3, 4),  # over half a cell
        (3.5, 0.5, 3, 3),  # of 2.5 m that were due
        (2.0, 0.5, 3, 2),
        (0.0, 0.0, 3, 3),  # it was told to stand
        (0.0, 0.5, 0, 0),  # there is no lower one
        (4.5, 1.2, 3, 3),  # half a cell, but 6 m were due
    ],
)
def test_levels_follow_success(task: Task, walked: float, speed: float, before: int, after: int) -> None:
    x, y = middle(before, UP)
    last = state_at(x + 0.6 * walked, y - 0.8 * walked, level=before, kind=UP, command=(0.0, speed, 1.0), step=700)
    start = task.begin_episode(last, torch.Generator().manual_seed(0))
    assert start.memory["terrain_level"].item() == after and start.memory["terrain_kind"].item() == UP
    np.testing.assert_allclose(start.qpos[0, :2], middle(after, UP), atol=0.5)


def test_who_masters_the_last_level_goes_to_any(task: Task) -> None:
    x, y = middle(9, SLOPE)
    last = state_at(x + 5.0, y, level=9, kind=SLOPE, command=(0.5, 0.0, 0.0), step=700)
    generator = torch.Generator().manual_seed(0)
    levels = {int(task.begin_episode(last, generator).memory["terrain_level"].item()) for _ in range(200)}
    assert levels == set(range(10))


def test_first_episodes_are_on_level_zero_in_the_given_proportions(task: Task) -> None:
    one = state_at(0.0, 0.0, step=0)
    last = one.rows(torch.zeros(5000, dtype=torch.int64))
    start = task.begin_episode(last, torch.Generator().manual_seed(0))
    assert (start.memory["terrain_level"] == 0).all()
    shares = torch.bincount(start.memory["terrain_kind"].long().squeeze(1)) / 5000
    np.testing.assert_allclose(shares, [0.1, 0.1, 0.35, 0.25, 0.2], atol=0.03)
    command = start.memory["command"]
    speed = command[:, :2].norm(dim=1)
    assert ((speed == 0.0) | (speed > 0.25)).all() and 0.02 < (speed == 0.0).float().mean() < 0.08
    assert (command[speed == 0.0] == 0.0).all() and command[:, 2].abs().max() > 3.0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"maxInitMapLevel": 10}, "terrain.maxInitMapLevel=10: must be from 0 to 9"),
        ({"terrainProportions": [1.0]}, "5 shares"),
    ],
)
def test_wrong_terrain_is_refused_by_name(robot: RobotModel, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_task("AnymalTerrain", {"numEnvs": 1, "episodeLength": 10, "terrain": settings}, robot, DT)


@pytest.fixture
def make_pool(compose_config: Callable[..., DictConfig]) -> Callable[..., EnvironmentPool]:
    def made(side: str, seed: int = 0) -> EnvironmentPool:
        experiment = Experiment(compose_config(*SMALL, *EVERYWHERE))
        return experiment.make_pool({"low": experiment.low_engines[0], "high": experiment.high_engine}[side], 40, seed)

    return made


@pytest.mark.parametrize("side", ["low", "high"])
def test_it_stands_on_every_level(side: str, make_pool: Callable[..., EnvironmentPool]) -> None:
    """Without action, on the cells' platforms; only rough ones may throw it."""
    pool = make_pool(side)
    kind = pool.state_dict()["memory"]["terrain_kind"][:, 0]
    fallen = torch.zeros(40, dtype=torch.bool)
    for _ in range(75):
        pool.step(torch.zeros(40, 12))
        fallen |= pool.terminated
    assert not fallen[kind != ROUGH].any()
    ground = pool.task.ground.height(pool.simulator.qpos[:, 0], pool.simulator.qpos[:, 1])
    height = (pool.simulator.qpos[:, 2] - ground)[kind != ROUGH]
    assert (height > 0.42).all() and (height < 0.6).all()
    assert len(kind.unique()) == 5 and ground.max() - ground.min() > 1.0
    pool.simulator.close()


def test_the_same_seed_gives_the_same_trajectory(make_pool: Callable[..., EnvironmentPool]) -> None:
    trajectories = [random_trajectory(make_pool("high", seed), 20)[0] for seed in (1, 1, 2)]
    assert torch.equal(trajectories[0], trajectories[1])
    assert not torch.equal(trajectories[0], trajectories[2])


@pytest.mark.slow
def test_both_fidelities_train(compose_config: Callable[..., DictConfig]) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL)))
    for _ in range(2):
        metrics = trainer.iterate()
    trainer.close()
    assert metrics["allocation/n_low"] > 0 and metrics["allocation/n_high"] > 0
    for side in ("low", "high"):
        assert metrics[f"measure_terrain_level/{side}"] == 0.0 and metrics[f"failures/{side}"] == 0
    assert all(map(math.isfinite, metrics.values()))
