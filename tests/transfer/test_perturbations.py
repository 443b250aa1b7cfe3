"""Perturbations: what reaches the engine, and what is refused."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator

import mujoco
import numpy as np
import pytest
import torch

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.randomization import RandomizationConfig, Range
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings
from dualfid_robot.transfer.perturbations import KINDS, Perturbation, parse_perturbations

N = 4
Pools = Callable[..., EnvironmentPool]


@pytest.fixture
def pool_of(experiment_of: Callable[..., Experiment]) -> Iterator[Pools]:
    """A pool in a perturbed world: pool_of("Ant", "slope=5", "mujoco")."""
    made: list[EnvironmentPool] = []

    def pool(task: str, text: str, engine: str = "mujoco", num_envs: int = N) -> EnvironmentPool:
        experiment = experiment_of(task)
        perturbation = parse_perturbations([text] if text else [])[-1]
        settings = simulator_settings(engine, experiment.settings["task"])
        made.append(perturbation.apply(experiment).make_pool(settings, num_envs, seed=0))
        return made[-1]

    yield pool
    for each in made:
        each.simulator.close()


def expected_steps(
    pool: EnvironmentPool, change: Callable[[mujoco.MjModel], None], control: np.ndarray, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """qpos and qvel by MuJoCo itself, with a changed model, from where the pool's worlds are now."""
    substeps = 8
    model = pool.task.robot.compile(pool.task.control_dt / substeps)
    change(model)
    data, after = mujoco.MjData(model), []
    mujoco.mj_setConst(model, data)
    for qpos, qvel in zip(pool.simulator.qpos.numpy(), pool.simulator.qvel.numpy(), strict=True):
        mujoco.mj_resetData(model, data)
        data.qpos[:], data.qvel[:], data.ctrl[:] = qpos, qvel, control
        mujoco.mj_step(model, data, steps * substeps)
        after.append((data.qpos.copy(), data.qvel.copy()))
    positions, velocities = zip(*after, strict=True)
    return np.array(positions), np.array(velocities)


def heavier(model: mujoco.MjModel) -> None:
    model.body_mass *= 1.2
    model.body_inertia *= 1.2


def weaker(model: mujoco.MjModel) -> None:
    model.actuator_gainprm[:, 0] *= 0.5


@pytest.mark.parametrize(("text", "change"), [("mass=1.2", heavier), ("motor_strength=0.5", weaker)])
def test_the_engine_does_as_mujoco_with_a_changed_model(
    text: str, change: Callable[[mujoco.MjModel], None], pool_of: Pools
) -> None:
    pool, nominal = pool_of("Cartpole", text), pool_of("Cartpole", "")
    for each in (pool, nominal):
        each.seed(1)
        each.reset_all()
    expected, expected_velocity = expected_steps(pool, change, np.array([0.8]), 5)
    for _ in range(5):
        pool.step(torch.full((N, 1), 0.8))
        nominal.step(torch.full((N, 1), 0.8))
    np.testing.assert_allclose(pool.simulator.qpos, expected, atol=1e-5)
    np.testing.assert_allclose(pool.simulator.qvel, expected_velocity, atol=1e-4)
    assert (pool.simulator.qvel - nominal.simulator.qvel).abs().max() > 1e-2


def test_friction_reaches_the_feet(pool_of: Pools) -> None:
    """An Ant that slides on the ground, one control step."""

    def slippery(model: mujoco.MjModel) -> None:
        model.geom_friction[:, 0] *= 0.3

    pool = pool_of("Ant", "friction=0.3")
    qpos, qvel = pool.simulator.qpos.clone(), torch.zeros_like(pool.simulator.qvel)
    qpos[:, 2], qvel[:, 0] = 0.5, 2.0
    qpos[:, 7:] = torch.tensor([0.0, 0.9, 0.0, -0.9, 0.0, -0.9, 0.0, 0.9])  # it stands
    pool.simulator.set_state(torch.arange(N), qpos, qvel)
    found = []
    for change in (slippery, lambda model: None):
        found.append(expected_steps(pool, change, np.zeros(8), 1)[1])
    pool.step(torch.zeros(N, 8))
    np.testing.assert_allclose(pool.simulator.qvel, found[0], atol=1e-3)
    assert np.abs(found[0] - found[1]).max() > 1e-2


@pytest.mark.parametrize("engine", ["mujoco", "mujoco_reduced", "physx"])
@pytest.mark.parametrize("degrees", [10.0, -30.0])
def test_a_slope_is_a_component_of_gravity(engine: str, degrees: float, pool_of: Pools) -> None:
    """A robot in the air: on ground that rises towards +x it accelerates by g sin towards -x and by g cos downwards."""
    pool = pool_of("Ant", f"slope={degrees}", engine)
    qpos, qvel = pool.simulator.qpos.clone(), torch.zeros_like(pool.simulator.qvel)
    qpos[:, 2] = 10.0
    qpos[:, 7:] = torch.tensor([0.0, 0.9, 0.0, -0.9, 0.0, -0.9, 0.0, 0.9])  # within the limits
    pool.simulator.set_state(torch.arange(N), qpos, qvel)
    pool.step(torch.zeros(N, 8))
    g, angle = -float(pool.task.robot.model.opt.gravity[2]), math.radians(degrees)
    acceleration = pool.simulator.qvel[:, :3].numpy() / pool.task.control_dt
    expected = np.tile([-g * math.sin(angle), 0.0, -g * math.cos(angle)], (N, 1))
    np.testing.assert_allclose(acceleration, expected, atol=0.01 * g)
    assert torch.equal(pool.randomization.values["slope"], torch.full((N,), degrees))  # type: ignore[union-attr]


def test_slope_and_gravity_add_up(experiment_of: Callable[..., Experiment]) -> None:
    """As domain randomisation: slopes are drawn from their range, and gravity is added in the frame of the ground."""
    experiment = experiment_of("Ant")
    settings = {"slope": {"range": [-20.0, 20.0]}, "gravity": {"range": [1.0, 1.0]}}
    config = parse_settings(RandomizationConfig, settings, "task.randomization")
    assert str(config) == "gravity uniform in [1, 1], slope uniform in [-20, 20]"
    experiment.task = dataclasses.replace(experiment.task, randomize=True, randomization=config)
    pool = experiment.make_pool(simulator_settings("mujoco", experiment.settings["task"]), 64, seed=0)
    slope = pool.randomization.values["slope"].numpy()  # type: ignore[union-attr]
    assert slope.min() < -15 and slope.max() > 15 and np.abs(slope).max() <= 20
    qpos = pool.simulator.qpos.clone()
    qpos[:, 2] = 10.0
    qpos[:, 7:] = torch.tensor([0.0, 0.9, 0.0, -0.9, 0.0, -0.9, 0.0, 0.9])
    pool.simulator.set_state(torch.arange(64), qpos, torch.zeros_like(pool.simulator.qvel))
    pool.simulator.step(torch.zeros(64, 8), 64)
    g, angle = -float(pool.task.robot.model.opt.gravity[2]), np.radians(slope)
    expected = np.stack((1 - g * np.sin(angle), np.ones(64), 1 - g * np.cos(angle)), 1)
    np.testing.assert_allclose(pool.simulator.qvel[:, :3].numpy() / pool.task.control_dt, expected, atol=0.01 * g)
    pool.simulator.close()


def test_latency_delays_actions(pool_of: Pools) -> None:
    """With a latency of 2, an action does nothing for two steps, and then what it did in the nominal world at once."""
    pools = [pool_of("Cartpole", text) for text in ("latency=2", "")]
    for pool in pools:
        pool.simulator.set_state(torch.arange(N), torch.zeros(N, 2), torch.zeros(N, 2))
    velocities = [[], []]  # type: ignore[var-annotated]
    for _ in range(4):
        for pool, found in zip(pools, velocities, strict=True):
            pool.step(torch.ones(N, 1))
            found.append(pool.simulator.qvel.clone())
    delayed, prompt = velocities
    assert delayed[0].abs().max() == 0.0 and delayed[1].abs().max() == 0.0
    assert torch.equal(delayed[2], prompt[0]) and torch.equal(delayed[3], prompt[1])


@pytest.mark.parametrize("task", ["Cartpole", "Ant"])
def test_noise_is_in_units_of_the_scaled_observation(task: str, pool_of: Pools) -> None:
    pools = [pool_of(task, text, "mujoco_reduced", 1500) for text in ("observation_noise=0.05", "")]
    for pool in pools:
        pool.seed(2)
        pool.reset_all()
    noise = (pools[0].observations - pools[1].observations)[:, : pools[0].task.num_observations]
    free = pools[1].observations.abs().amax(0) < pools[1].task.config.clipObservations - 0.5  # not clipped
    assert free.sum() >= 4
    np.testing.assert_allclose(noise[:, free].std(0), 0.05, rtol=0.15)


def test_starts_are_the_same_in_every_world(pool_of: Pools) -> None:
    texts = ["", "mass=2", "friction=0.1", "latency=3", "observation_noise=0.5", "slope=8", "motor_strength=0.5"]
    starts = []
    for text in texts:
        pool = pool_of("Ant", text, "mujoco_reduced")
        pool.seed(7)
        pool.reset_all()
        starts.append((pool.simulator.qpos.clone(), pool.simulator.qvel.clone()))
    for qpos, qvel in starts[1:]:
        assert torch.equal(qpos, starts[0][0]) and torch.equal(qvel, starts[0][1])


def test_a_range_of_one_value_draws_nothing() -> None:
    generator = torch.Generator().manual_seed(0)
    before = generator.get_state()
    assert torch.equal(Range((0.3, 0.3), "loguniform").sample((2, 3), generator), torch.full((2, 3), 0.3))
    assert torch.equal(generator.get_state(), before)


def test_what_an_engine_cannot_do_it_says(experiment_of: Callable[..., Experiment]) -> None:
    ant, cartpole = experiment_of("Ant"), experiment_of("Cartpole")
    reason = Perturbation("slope", 5.0).problem(ant, "pybullet")
    assert reason is not None
    assert reason.startswith("engine pybullet cannot set it, which turns gravity, per world; allowed are [")
    for kind in KINDS:
        assert Perturbation(kind, 1.0).problem(ant, "mujoco") is None
        assert (Perturbation(kind, 1.0).problem(cartpole, "pybullet") is None) == (kind != "slope")


def test_parsing() -> None:
    nominal, first, second = parse_perturbations(["friction=0.5", "friction=2", "friction=0.50"])
    assert (str(nominal), str(first), str(second)) == ("nominal", "friction=0.5", "friction=2")
    assert parse_perturbations([]) == (Perturbation(),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("frction=1", "perturb=frction=1: allowed are ['friction', "),
        ("friction", "perturb=friction: a number is expected, such as friction=1, not no value"),
        ("friction=", "perturb=friction=: a number is expected"),
        ("mass=heavy", "perturb=mass=heavy: a number is expected, such as mass=1, not 'heavy'"),
        ("mass=0", "perturb=mass=0: mass.range=[0.0, 0.0]: must be positive"),
        ("mass=nan", "perturb=mass=nan: mass.range"),
        ("mass=inf", "perturb=mass=inf: must be at most 1000"),
        ("friction=-1", "perturb=friction=-1: friction.range=[-1.0, -1.0]: must be at least 0"),
        ("latency=1.5", "perturb=latency=1.5: latency.range=[1.5, 1.5]: must be whole numbers of at least 0"),
        ("mass=1e300", "perturb=mass=1e+300: must be at most 1000"),
        ("latency=1e12", "perturb=latency=1e+12: must be at most 499"),
        ("slope=90", "perturb=slope=90: slope.range=[90.0, 90.0]: must be within (-90, 90) degrees"),
        ("observation_noise=-0.1", "perturb=observation_noise=-0.1: must be a finite number of at least 0"),
    ],
)
def test_wrong_ones_are_refused(text: str, message: str, experiment_of: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_perturbations([text])[-1].randomization(experiment_of("Cartpole").make_task())
    assert str(error.value).startswith(message)
