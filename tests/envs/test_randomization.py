"""Domain randomisation: what is drawn, when, for whom, what reaches the engine, and what is refused."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig
from scipy import stats
from torch import Tensor
from toys import DT, MaskingRecorder, Recorder, make_pool

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.randomization import RandomizationConfig, Range
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings
from dualfid_robot.tasks.ant import Ant
from dualfid_robot.train.trainer import Trainer

WORLDS = 6
ENGINES = [Recorder, MaskingRecorder]
EVERYTHING = {
    "friction": {"range": [0.5, 1.5]},
    "mass": {"range": [0.8, 1.2]},
    "damping": {"range": [0.1, 10.0], "distribution": "loguniform"},
    "motor_strength": {"range": [0.7, 1.3]},
    "gravity": {"range": [-0.5, 0.5]},
    "latency": {"range": [0, 3]},
    "action_noise": 0.1,
    "observation_noise": {"joints": 0.05, "command": 0.2},
}


def configured(**settings: object) -> RandomizationConfig:
    return parse_settings(RandomizationConfig, settings, "task.randomization")


def randomized_pool(
    robot: RobotModel, engine: type[Recorder] = Recorder, n: int = WORLDS, seed: int = 0, **settings: object
) -> EnvironmentPool:
    return make_pool(robot, n, engine, randomization=configured(**settings), seed=seed)


def ants(robot: RobotModel, engine: type[Recorder], n: int, **settings: object) -> EnvironmentPool:
    return make_pool(robot, n, engine, Ant, configured(**settings), episode_length=1000)


def drive(pool: EnvironmentPool, steps: int, seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Random steps, every third one of fewer worlds; the actions, and which worlds' episodes ended."""
    generator = torch.Generator().manual_seed(seed)
    done = []
    for step in range(steps):
        n = pool.num_envs - 2 if step % 3 == 2 else pool.num_envs
        actions = torch.randn(n, pool.task.num_actions, generator=generator)
        pool.step(actions)
        done.append((actions, (pool.terminated | pool.truncated)[:n].clone()))
    return done


@settings(max_examples=50, deadline=None)
@given(
    low=st.floats(-1e3, 1e3),
    width=st.floats(0.0, 1e3),
    logarithmic=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_values_lie_within_their_bounds(low: float, width: float, logarithmic: bool, seed: int) -> None:
    low = abs(low) + 1e-3 if logarithmic else low
    limits = Range((low, low + width), "loguniform" if logarithmic else "uniform")
    values = limits.sample((200, 3), torch.Generator().manual_seed(seed))
    assert values.shape == (200, 3) and values.dtype == torch.float32
    bounds = np.float32([low, low + width])
    assert values.min() >= bounds[0] and values.max() <= bounds[1]


@pytest.mark.parametrize(
    ("distribution", "oracle"),
    [("uniform", stats.uniform(0.1, 9.9)), ("loguniform", stats.loguniform(0.1, 10.0))],
)
def test_values_have_their_distribution(distribution: str, oracle: stats.rv_continuous) -> None:
    limits = Range((0.1, 10.0), distribution)  # type: ignore[arg-type]
    values = limits.sample((5000,), torch.Generator().manual_seed(0)).numpy()
    assert stats.kstest(values, oracle.cdf).pvalue > 0.01


@pytest.mark.parametrize("engine", ENGINES)
def test_each_episode_draws_for_its_own_world(cartpole: RobotModel, engine: type[Recorder]) -> None:
    pool = randomized_pool(cartpole, engine, **EVERYTHING)
    simulator = pool.simulator
    assert isinstance(simulator, Recorder)
    drawn = pool.randomization
    assert drawn is not None
    (ids, first), *_ = simulator.parameters
    assert ids.tolist() == list(range(WORLDS)) and len(simulator.parameters) == 1
    shapes = {"friction": (), "damping": (), "mass": (2,), "motor_strength": (1,), "gravity": (3,)}
    assert {name: values.shape[1:] for name, values in first.items()} == shapes
    expected = torch.tensor([0.0, 0.0, -9.81]) + drawn.values["gravity"]
    torch.testing.assert_close(first["gravity"], expected)
    for name in shapes:
        low, high = configured(**EVERYTHING).parameters[name].range
        assert (drawn.values[name] >= low).all() and (drawn.values[name] <= high).all()
        assert len(drawn.values[name].unique()) == drawn.values[name].numel()
    ends = 0
    for _ in range(20):
        before = {name: values.clone() for name, values in drawn.values.items()}
        told = len(simulator.parameters)
        ((_, ended),) = drive(pool, 1, seed=ends)
        ended = torch.cat((ended, torch.zeros(WORLDS - len(ended), dtype=torch.bool)))
        ends += int(ended.sum())
        for name in shapes:
            changed = (drawn.values[name] != before[name]).view(WORLDS, -1).any(1)
            assert torch.equal(changed, ended)
        if ended.any():
            ids, parameters = simulator.parameters[-1]
            assert ids.tolist() == ended.nonzero().squeeze(1).tolist()
            assert torch.equal(parameters["mass"], drawn.values["mass"][ids])
        assert len(simulator.parameters) == told + int(ended.any())
        assert torch.equal(pool.observations[:, 16], drawn.values["friction"])  # the critic's term
    assert ends > 5
    snapshot = simulator.snapshot()
    for name in ("friction", "mass", "damping", "motor_strength"):
        np.testing.assert_array_equal(snapshot[f"parameter/{name}"].astype(np.float32), drawn.values[name].numpy())
    means = pool.take_statistics().randomized
    assert means == {name: pytest.approx(float(v.double().mean()), abs=1e-6) for name, v in drawn.values.items()}


def test_gravity_acts_in_free_fall(ant: RobotModel) -> None:
    pool = ants(ant, Recorder, 8, gravity={"range": [-3.0, 3.0]}, mass={"range": [0.5, 2.0]})
    assert pool.randomization is not None
    qpos = pool.simulator.qpos.clone()
    qpos[:, 2] = 50.0
    pool.simulator.set_state(torch.arange(8), qpos, torch.zeros(8, 14))
    steps = 12
    for _ in range(steps):
        pool.step(torch.zeros(8, 8))
    gravity = torch.tensor([0.0, 0.0, -9.81]) + pool.randomization.values["gravity"]
    torch.testing.assert_close(pool.simulator.qvel[:, :3], steps * DT * gravity, rtol=0, atol=0.02)


def test_welded_bodies_share_a_mass_factor(tmp_path: Path) -> None:
    path = tmp_path / "welded.xml"
    path.write_text(
        "<mujoco><worldbody><body name='a'><joint type='slide' name='j'/><geom size='.1'/>"
        "<body name='b' pos='1 0 0'><geom size='.1'/><body name='c' pos='1 0 0'><joint name='k'/><geom size='.1'/>"
        "<body name='d' pos='1 0 0'><geom size='.1'/></body></body></body></body></worldbody>"
        "<actuator><motor joint='j'/></actuator></mujoco>"
    )
    pool = randomized_pool(RobotModel(path), mass={"range": [0.5, 1.5]})
    assert pool.randomization is not None
    mass = pool.randomization.values["mass"]
    assert torch.equal(mass[:, 0], mass[:, 1]) and torch.equal(mass[:, 2], mass[:, 3])
    assert (mass[:, 0] != mass[:, 2]).all()


@pytest.mark.parametrize("engine", ENGINES)
def test_actions_arrive_late_by_whole_steps(cartpole: RobotModel, engine: type[Recorder]) -> None:
    """Against a list of every world's actions in its episode; before the first action there was none."""
    pool = randomized_pool(cartpole, engine, latency={"range": [0, 3]})
    pool.task.action_mapping = type(pool.task.action_mapping)("force", scale=0.05)  # not cumulative
    simulator, drawn = pool.simulator, pool.randomization
    assert isinstance(simulator, Recorder) and drawn is not None
    given: list[list[Tensor]] = [[] for _ in range(WORLDS)]
    generator, seen = torch.Generator().manual_seed(0), set()
    for step in range(80):
        n = WORLDS - 2 if step % 3 == 2 else WORLDS
        actions = 0.5 * torch.randn(n, 1, generator=generator)
        latency = drawn.values["latency"].tolist()
        seen |= set(latency)
        pool.step(actions)
        for world in range(n):
            given[world].append(actions[world].clamp(-1, 1))
            episode = [torch.zeros(1)] * 3 + given[world]
            expected = 0.05 * episode[-1 - latency[world]]
            assert torch.equal(simulator.controls[-1][world], expected)
            if pool.terminated[world] or pool.truncated[world]:
                given[world] = []
        running = ~(pool.terminated | pool.truncated)[:n]
        # the policy knows what it asked for, not when it is done
        assert torch.equal(pool.observations[:n, 10][running], actions[running, 0].clamp(-1, 1))
    assert seen == {0, 1, 2, 3}


def test_noisy_actions_keep_their_bounds(cartpole: RobotModel) -> None:
    pool = randomized_pool(cartpole, n=4000, action_noise=0.1)
    pool.task.action_mapping = type(pool.task.action_mapping)("force")
    assert isinstance(pool.simulator, Recorder)
    actions = torch.cat((torch.full((2000, 1), 0.3), torch.full((2000, 1), 5.0)))
    pool.step(actions)
    controls = pool.simulator.controls[-1]
    noise = controls[:2000] - 0.3
    assert abs(float(noise.mean())) < 0.1 * 4 / math.sqrt(2000)
    assert float(noise.std()) == pytest.approx(0.1, rel=0.08)
    assert controls.abs().max() == 1.0
    assert (controls[2000:] == 1.0).float().mean() == pytest.approx(0.5, abs=0.05)  # clipped, made noisy, clipped


def test_noise_is_on_what_the_policy_sees_alone(cartpole: RobotModel) -> None:
    """Rewards, measures, memory and the critic's terms are clean; the noise is in the unit of the raw value."""
    pool = randomized_pool(cartpole, n=2000, observation_noise={"joints": 0.05, "control": 0.0})
    for step in range(2):
        if step:
            pool.step(torch.zeros(2000, 1))
        noise = pool.observations[:, 4:6] / 2.0 - pool.simulator.qpos
        for column in range(2):
            assert float(noise[:, column].std()) == pytest.approx(0.05, rel=0.08)
            assert abs(float(noise[:, column].mean())) < 0.05 * 4 / math.sqrt(2000)
        assert abs(float(torch.corrcoef(noise.T)[0, 1])) < 0.1
        assert torch.equal(pool.observations[:, 13:15], 0.5 * pool.simulator.qvel)
        assert torch.equal(pool.observations[:, 15], pool.state_dict()["memory"]["level"][:, 0])
        assert (pool.observations[:, 8:10] - pool.observations[:1, 8:10]).abs().max() == 0.0  # the control
    command = pool.state_dict()["memory"]["command"]
    error = (pool.simulator.qpos[:, 0] - command[:, 0]).abs()
    assert torch.equal(pool.measured["error"], error) and torch.equal(pool.reward, command[:, 0])


@pytest.mark.parametrize("engine", ENGINES)
def test_a_history_holds_what_was_seen(cartpole: RobotModel, engine: type[Recorder]) -> None:
    pool = randomized_pool(cartpole, engine, observation_noise={"joints": 0.05})
    shown = [pool.observations[:, :6].clone()]
    assert torch.equal(shown[0][:, 0:2], shown[0][:, 4:6])
    for _ in range(5):
        pool.step(torch.full((WORLDS, 1), 0.2 / 0.3 if len(shown) == 1 else 0.0))
        shown.append(pool.observations[:, :6].clone())
        assert torch.equal(shown[-1][:, :4], shown[-2][:, 2:])
        assert not torch.equal(shown[-1][:, 4:], shown[-2][:, 4:])


def test_noise_comes_before_the_clip(cartpole: RobotModel) -> None:
    pool = make_pool(cartpole, 500, clip=0.25, randomization=configured(observation_noise={"joints": 0.05}))
    assert pool.observations.abs().max() == 0.25  # 0.1 rad · 2 is below, with noise it is beyond


@pytest.mark.parametrize("engine", ENGINES)
def test_pushes_change_the_roots_velocity_in_time(ant: RobotModel, engine: type[Recorder]) -> None:
    interval, velocity = (4 * DT, 7 * DT), (0.5, 1.5)
    pool = ants(ant, engine, 12, push={"interval": {"range": list(interval)}, "velocity": {"range": list(velocity)}})
    simulator = pool.simulator
    assert isinstance(simulator, Recorder)
    last = torch.zeros(12, dtype=torch.int32)
    angles = []
    for step in range(40):
        n = 9 if step % 3 == 2 else 12
        simulator.states.clear()
        before, qpos = simulator.qvel.clone(), simulator.qpos.clone()
        steps = pool.episode_step.clone()
        pool.start_step(torch.zeros(n, 8))
        pushed = (simulator.qvel != before).any(1)
        change = (simulator.qvel - before)[pushed]
        assert not pushed[n:].any() and torch.equal(simulator.qpos, qpos)
        assert not change[:, 2:].any()
        magnitude = change[:, :2].norm(dim=1)
        assert (magnitude > velocity[0] - 1e-5).all() and (magnitude < velocity[1] + 1e-5).all()
        angles += torch.atan2(change[:, 1], change[:, 0]).tolist()
        waited = (steps - last)[pushed]
        assert (waited >= 4).all() and (waited <= 7).all()
        assert ((steps - last)[:n][~pushed[:n]] < 7).all()
        last[pushed] = steps[pushed]
        pool.finish_step()
        last[:n][(pool.terminated | pool.truncated)[:n]] = 0
    assert len(angles) > 40 and np.ptp(angles) > math.pi


@pytest.mark.parametrize("engine", ENGINES)
def test_a_randomised_pool_goes_on_exactly(ant: RobotModel, engine: type[Recorder]) -> None:
    everything = EVERYTHING | {
        "observation_noise": {"height": 0.05, "foot_wrench": 0.2},
        "push": {"interval": {"range": [0.05, 0.2]}, "velocity": {"range": [0.1, 3.0], "distribution": "loguniform"}},
    }
    pools = [make_pool(ant, WORLDS, engine, Ant, configured(**everything), seed, episode_length=9) for seed in (0, 4)]
    drive(pools[0], 14, seed=0)
    drive(pools[1], 5, seed=1)
    pools[1].load_state_dict(copy.deepcopy(pools[0].state_dict()))
    for step in range(20):
        ends = [drive(pool, 1, seed=step)[0][1] for pool in pools]
        assert torch.equal(*ends)
        first, second = (pool.state_dict() for pool in pools)
        for name in ("observations", "controls", "episode_return", "generator"):
            assert torch.equal(first[name], second[name]), (step, name)
        for name, values in first["randomization"]["values"].items():
            assert torch.equal(values, second["randomization"]["values"][name]), (step, name)


def test_a_seed_repeats_everything(cartpole: RobotModel) -> None:
    pool = randomized_pool(cartpole, seed=3, **EVERYTHING)
    twin = randomized_pool(cartpole, seed=3, **EVERYTHING)
    other = randomized_pool(cartpole, seed=4, **EVERYTHING)
    for each in (pool, twin, other):
        drive(each, 15)
    assert torch.equal(pool.observations, twin.observations)
    assert not torch.equal(pool.observations, other.observations)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"frictoin": {"range": [0, 1]}}, r"randomization\.frictoin=.*: no such setting; did you mean friction"),
        ({"friction": [0.5, 1.5]}, r"randomization\.friction=\[0.5, 1.5\]: a mapping is expected"),
        ({"friction": {"range": [1.5, 0.5]}}, r"friction\.range=\[1.5, 0.5\]: must be two finite numbers, the lower"),
        ({"friction": {"range": [1.0]}}, r"friction\.range=\[1.0\]: must be two finite numbers"),
        ({"gravity": {"range": [0.0, math.inf]}}, r"gravity\.range=\[0.0, inf\]: must be two finite"),
        ({"friction": {"range": [-0.5, 1.5]}}, r"friction\.range=\[-0.5, 1.5\]: must be at least 0"),
        ({"mass": {"range": [0.0, 1.5]}}, r"mass\.range=\[0.0, 1.5\]: must be positive"),
        ({"mass": {"range": [0.5, 2], "distribution": "normal"}}, r"mass\.distribution=normal: allowed are \['uniform"),
        (
            {"damping": {"range": [0, 2], "distribution": "loguniform"}},
            r"damping\.range=\[0.0, 2.0\]: must be positive where",
        ),
        ({"latency": {"range": [0.5, 2]}}, r"latency\.range=\[0.5, 2.0\]: must be whole numbers of at least 0"),
        ({"latency": {"range": [-1, 2]}}, r"latency\.range=\[-1.0, 2.0\]: must be whole numbers of at least 0"),
        (
            {"latency": {"range": [1, 2], "distribution": "loguniform"}},
            r"latency\.distribution=loguniform: must be uniform",
        ),
        ({"action_noise": -0.1}, r"randomization\.action_noise=-0.1: must be a finite number of at least 0"),
        ({"push": {"interval": {"range": [5, 9]}}}, r"push\.velocity: is required"),
        (
            {"push": {"interval": {"range": [0, 9]}, "velocity": {"range": [0, 1]}}},
            r"push\.interval\.range=\[0.0, 9.0\]: must be positive",
        ),
        (
            {"servo_stiffness": {"range": [0.5, 1.5]}},
            r"servo_stiffness=\[0.5, 1.5\]: cartpole\.xml has no position servo",
        ),
        (
            {"servo_damping": {"range": [0.5, 1.5]}},
            r"servo_damping=\[0.5, 1.5\]: cartpole\.xml has no position or velocity servo",
        ),
        (
            {"push": {"interval": {"range": [5, 9]}, "velocity": {"range": [0, 1]}}},
            r"task\.randomization\.push: the base of cartpole.xml is fixed",
        ),
        (
            {"observation_noise": {"joint": 0.1}},
            r"observation_noise\.joint=0.1: no such term; allowed are \['joints', ",
        ),
        ({"observation_noise": {"speeds": 0.1}}, r"observation_noise\.speeds=0.1: no such term; allowed are \['joints"),
        ({"observation_noise": {"joints": -1}}, r"observation_noise\.joints=-1.0: must be a finite number"),
        ({"observation_noise": {"joints": "x"}}, r"observation_noise\.joints=x: a number is expected"),
    ],
)
def test_wrong_settings_are_refused_by_name(cartpole: RobotModel, settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        randomized_pool(cartpole, **settings)
    assert "task.randomization." in str(caught.value) and "\n" not in str(caught.value)


def test_an_engine_that_cannot_is_named(cartpole: RobotModel) -> None:
    class Rigid(Recorder):
        SUPPORTED_PARAMETERS = ("mass", "friction")

    message = r"task\.randomization\.gravity=\[0.0, 1.0\]: engine toys cannot .*; allowed are \['friction', 'mass'\]"
    Rigid.__module__ = "engines.toys.simulator"
    with pytest.raises(ConfigError, match=message):
        make_pool(cartpole, 2, Rigid, randomization=configured(gravity={"range": [0, 1]}))


def test_it_is_off_unless_asked_for(compose_config: Callable[..., DictConfig]) -> None:
    overrides = ["task=Cartpole", "num_envs=8", "simulator/low=mujoco_reduced", "train.params.config.minibatch_size=64"]
    plain, asked = (Experiment(compose_config(*overrides, *more)) for more in ([], ["task.randomize=True"]))
    high = plain.high_engine
    assert plain.task.randomization == asked.task.randomization and plain.task.randomization.parameters
    pool = plain.make_pool(high, 8, 0)
    assert pool.randomization is None and pool.take_statistics().randomized == {}
    pool.simulator.close()
    trainer = Trainer(asked)
    metrics = trainer.iterate()
    trainer.close()
    for side in ("low", "high"):
        for name in ("mass", "motor_strength"):
            assert 0.5 < metrics[f"randomized_{name}/{side}"] < 1.5
    assert metrics["randomized_mass/low"] != metrics["randomized_mass/high"]


RANDOMIZED = [
    path.stem for path in sorted((CONFIG_DIR / "task").glob("*.yaml")) if "randomization:" in path.read_text()
]


@pytest.mark.parametrize("task", RANDOMIZED)
def test_every_tasks_own_ranges_are_accepted_in_both_fidelities(
    task: str, compose_config: Callable[..., DictConfig]
) -> None:
    overrides = (f"task={task}", "num_envs=4", "task.randomize=True", "simulator/low=mujoco_reduced")
    experiment = Experiment(compose_config(*overrides))
    assert str(experiment.task.randomization) != "nothing"
    for side in ("low", "high"):
        pool = experiment.make_pool({"low": experiment.low_engines[0], "high": experiment.high_engine}[side], 4, 0)
        drive(pool, 5)
        assert pool.randomization is not None
        assert torch.isfinite(pool.observations).all()
        pool.simulator.close()


def test_pybullet_takes_ants_ranges(compose_config: Callable[..., DictConfig]) -> None:
    experiment = Experiment(compose_config("task=Ant", "num_envs=4", "task.randomize=True", "simulator/low=pybullet"))
    pool = experiment.make_pool(experiment.low_engines[0], 4, 0)
    drive(pool, 5)
    assert torch.isfinite(pool.observations).all()
    pool.simulator.close()
