"""Gaps between the simulators: what each file of cfg/gap composes to, and what it does to a run."""

from __future__ import annotations

import copy
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.engines import simulator_names, simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.studies.gaps import changed_sides
from dualfid_robot.train.trainer import Trainer

Compose = Callable[..., DictConfig]
Composed = Callable[..., tuple[dict[str, Any], dict[str, Any]]]
Run = Callable[..., "subprocess.CompletedProcess[str]"]

GAPS = sorted(path.stem for path in (CONFIG_DIR / "gap").glob("*.yaml"))
TARGETS = {
    f"{name}_{word}": {key: factor}
    for name, key in (("friction", "friction"), ("gravity", "gravity"), ("mass", "mass"), ("kinematics", "joint_range"))
    for word, factor in (("half", 0.5), ("double", 2.0))
}
PRICES = {f"price_{price}": float(price) for price in (3, 10, 30, 100)}
LOW = {"reduced": "mujoco_reduced", "pybullet": "pybullet", "pybullet_uncalibrated": "pybullet_uncalibrated"}


def plain(cfg: DictConfig) -> dict[str, Any]:
    settings = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(settings, dict)
    return {str(key): value for key, value in settings.items()}


_WITHOUT: dict[str, dict[str, Any]] = {}


@pytest.fixture
def composed(compose_config: Compose) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """composed(task, overrides…): the task's settings without and with the overrides."""

    def compose(task: str, *overrides: str) -> tuple[dict[str, Any], dict[str, Any]]:
        if task not in _WITHOUT:
            _WITHOUT[task] = plain(compose_config(f"task={task}"))
        return copy.deepcopy(_WITHOUT[task]), plain(compose_config(f"task={task}", *overrides))

    return compose


def test_every_gap_is_known_here() -> None:
    assert sorted({"none", "misleading", "both", *LOW, *TARGETS, *PRICES}) == GAPS


@pytest.mark.parametrize(("gap", "task"), [*((gap, "Ant") for gap in TARGETS), ("kinematics_half", "Humanoid")])
def test_a_changed_target(gap: str, task: str, composed: Composed) -> None:
    """E_high's robot is changed, and nothing else."""
    without, with_gap = composed(task, f"+gap={gap}")
    assert changed_sides(with_gap, without) == "high"
    without["simulator"]["high"]["changes"] |= TARGETS[gap]
    assert with_gap == without


@pytest.mark.parametrize(("gap", "task"), [*((gap, "Ant") for gap in LOW), ("pybullet_uncalibrated", "Anymal")])
def test_another_low_simulator(gap: str, task: str, composed: Composed) -> None:
    """It wins over the one that the task names."""
    without, with_gap = composed(task, f"+gap={gap}")
    assert changed_sides(with_gap, without) == "low"
    of_low = {"share": None, "price": 1.0}
    without["simulator"]["low"] = {LOW[gap]: simulator_settings(LOW[gap], without["task"]) | of_low}
    assert with_gap == without


def test_no_gap_is_the_same_simulator_twice(compose_config: Compose, composed: Composed) -> None:
    more = ("simulator/high=physx", "simulator.high.substeps=3", "simulator.high.changes.mass=2", "+gap=none")
    for arguments in (("+gap=none",), more):
        experiment = Experiment(compose_config("task=Anymal", *arguments))
        (low,) = experiment.low_engines
        assert low == experiment.high_engine | {"share": 1.0}
    assert (low["name"], low["engine"], low["substeps"], low["changes"]) == ("physx", "physx", 3, {"mass": 2.0})
    without, with_gap = composed("Anymal", "+gap=none")
    assert changed_sides(with_gap, without) == "low"


def test_the_misleading_gap(composed: Composed) -> None:
    without, with_gap = composed("Ant", "+gap=misleading")
    assert changed_sides(with_gap, without) == "low"
    assert with_gap == without | {"low_reward_factor": -1.0}


@pytest.mark.parametrize("gap", PRICES)
def test_a_price(gap: str, composed: Composed) -> None:
    """Of a second of E_high, and nothing else."""
    without, with_gap = composed("Ant", f"+gap={gap}")
    assert changed_sides(with_gap, without) == "price"
    without["simulator"]["high"]["price"] = PRICES[gap]
    assert with_gap == without


def test_a_price_and_a_target_are_a_target(composed: Composed) -> None:
    without, with_gap = composed("Ant", "+gap=price_10", "simulator.high.changes.mass=2")
    assert changed_sides(with_gap, without) == "high"


def test_both_engines_of_e_low(compose_config: Compose, composed: Composed) -> None:
    without, with_gap = composed("Anymal", "+gap=both")
    assert changed_sides(with_gap, without) == "low"
    engines = Experiment(compose_config("task=Anymal", "+gap=both")).low_engines
    assert {engine["name"]: engine["share"] for engine in engines} == {"mujoco_reduced": 0.8, "pybullet": 0.2}


@pytest.mark.parametrize("overrides", [("simulator.high.changes.mass=2", "low_reward_factor=-1"), ("seed=1",)])
def test_both_sides_that_a_users_gap_changes(overrides: tuple[str, ...], composed: Composed) -> None:
    without, with_gap = composed("Ant", *overrides)
    assert changed_sides(with_gap, without) == "both"


def test_pybullet_without_a_fit() -> None:
    """It is what pybullet.yaml is for a task that nothing was fitted for."""
    uncalibrated = simulator_settings("pybullet_uncalibrated", {})
    assert uncalibrated == simulator_settings("pybullet", {}) | {"name": "pybullet_uncalibrated"}
    fitted = {"simulators": {"pybullet": {"friction": 0.1}}}
    assert simulator_settings("pybullet", fitted)["friction"] == 0.1
    assert simulator_settings("pybullet_uncalibrated", fitted) == uncalibrated


@pytest.mark.parametrize("name", simulator_names())
def test_every_simulators_robot_can_be_changed(name: str) -> None:
    assert simulator_settings(name, {})["changes"] == dict.fromkeys(("friction", "gravity", "mass", "joint_range"), 1.0)


def test_settings_hold_what_is_changed_and_no_more(compose_config: Compose) -> None:
    """So that a run without changes is the same as one that was made before there were any."""
    experiment = Experiment(
        compose_config("task=Ant", "simulator/low=pybullet", "simulator.low.pybullet.changes.mass=1")
    )
    assert [engine["changes"] for engine in experiment.engines.values()] == [{}, {}]
    changed = Experiment(compose_config("task=Ant", "simulator/low=mujoco", "simulator.low.mujoco.changes.mass=2"))
    assert changed.low_engines[0]["changes"] == {"mass": 2.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("simulator.high.changes.mass=0",), "simulator.high.changes.mass=0.0: must be a number in (0, 1000]"),
        (
            ("simulator/low=mujoco", "simulator.low.mujoco.changes.friction=-1"),
            "simulator.low.mujoco.changes.friction=-1.0: must be a number in (0, 1000]",
        ),
        (
            ("simulator/low=mujoco", "simulator.low.mujoco.changes=heavy"),
            "simulator.low.mujoco.changes=heavy: a mapping is expected",
        ),
        (("+simulator.high.changes.wind=2",), "simulator.high.changes.wind=2: no such setting; allowed are"),
        (("low_reward_factor=0",), "low_reward_factor=0: must be another number than 0"),
        (("low_reward_factor=.nan",), "low_reward_factor=.nan: must be a number in [-1000, 1000]"),
        (("low_reward_factor=True",), "low_reward_factor=True: must be a number in [-1000, 1000]"),
        (("low_reward_factor=null",), "low_reward_factor=None: must be a number in [-1000, 1000]"),
        (("task=Cartpole", "+gap=friction_half"), "simulator.high.changes.friction=0.5: cartpole.xml has no contacts"),
        (
            ("task=Cartpole", "+gap=kinematics_double"),
            "simulator.high.changes.joint_range=2: cartpole.xml has no limit",
        ),
    ],
)
def test_wrong_settings(arguments: tuple[str, ...], message: str, compose_config: Compose) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        Experiment(compose_config(*arguments))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("+gap=foo",), f"error: gap=foo: allowed are {GAPS}"),
        (("simulator.high.changes.mas=2",), "error: simulator.high.changes.mas=2: no such setting; did you mean mass?"),
    ],
)
def test_wrong_input_gives_one_line_and_status_2(arguments: tuple[str, ...], message: str, run_script: Run) -> None:
    result = run_script("train.py", *arguments)
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith(message) and result.stderr.count("\n") == 1, result.stderr


# Pools ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def pools(compose_config: Compose) -> Iterator[Callable[..., tuple[EnvironmentPool, EnvironmentPool]]]:
    """pools(overrides…): the low pool and the high one, of 8 environments each, from the same seed."""
    made: list[EnvironmentPool] = []

    def build(*overrides: str) -> tuple[EnvironmentPool, EnvironmentPool]:
        experiment = Experiment(compose_config("simulator.high.threads=1", *overrides))
        made.append(experiment.make_pool(experiment.low_engines[0], 8, 3, experiment.low_reward_factor))
        made.append(experiment.make_pool(experiment.high_engine, 8, 3, 1.0))
        return made[-2], made[-1]

    yield build
    for pool in made:
        pool.simulator.close()


def actions_of(pool: EnvironmentPool, steps: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.randn(steps, pool.num_envs, pool.task.num_actions, generator=generator)


def test_the_same_simulator_twice_does_the_same(pools: Any) -> None:
    low, high = pools("task=Ant", "+gap=none")
    for actions in actions_of(low, 30):
        low.step(actions)
        high.step(actions)
        assert torch.equal(low.observations, high.observations) and torch.equal(low.reward, high.reward)


def test_a_reversed_reward_changes_nothing_else(pools: Any) -> None:
    low, high = pools("task=Ant", "+gap=none", "low_reward_factor=-2.5", "task.env.episodeLength=15")
    for actions in actions_of(low, 30):
        low.step(actions)
        high.step(actions)
        assert torch.equal(low.observations, high.observations)
        assert torch.equal(low.reward, -2.5 * high.reward) and low.reward.any()
        assert torch.equal(low.truncated, high.truncated) and torch.equal(low.terminated, high.terminated)
    returns = [pool.take_statistics().returns for pool in (low, high)]
    assert len(returns[0]) >= 16
    assert torch.allclose(returns[0], -2.5 * returns[1], rtol=1e-5)


def test_the_task_keeps_the_unchanged_robot(pools: Any) -> None:
    """The same state is the same observation on both sides, though the ranges of their joints differ."""
    low, high = pools("task=Ant", "simulator/low=mujoco_reduced", "+gap=kinematics_half")
    assert low.task.robot == high.task.robot == low.simulator.robot != high.simulator.robot
    assert torch.equal(low.task.lower, high.task.lower)
    qpos, qvel = high.simulator.qpos.clone(), high.simulator.qvel.clone()
    observed = []
    for pool in (low, high):
        pool.simulator.set_state(torch.arange(8), qpos, qvel)
        observed.append(pool.task.observe(pool._state(8)))
    one, other = observed
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("task", ["Ant", "Humanoid"])
def test_episodes_begin_within_a_changed_range(task: str, pools: Any) -> None:
    low, high = pools(f"task={task}", "+gap=kinematics_half", "simulator/low=mujoco", "task.env.episodeLength=9")
    lower, upper = torch.from_numpy(high.simulator.robot.joint_limits).float().unbind(1)
    outside = (low.simulator.qpos[:, 7:] < lower) | (low.simulator.qpos[:, 7:] > upper)
    assert outside.any(), "nothing to clamp"
    for _ in range(2):
        joints = high.simulator.qpos[:, 7:]
        assert ((joints >= lower) & (joints <= upper)).all()
        assert torch.equal(joints[~outside], low.simulator.qpos[:, 7:][~outside])
        high.reset_all()
        low.reset_all()
        outside = (low.simulator.qpos[:, 7:] < lower) | (low.simulator.qpos[:, 7:] > upper)


def test_a_wider_range_changes_no_start(pools: Any) -> None:
    low, high = pools("task=Ant", "+gap=kinematics_double", "simulator/low=mujoco")
    assert torch.equal(low.simulator.qpos, high.simulator.qpos)


def test_drawn_gravity_adds_to_the_changed_one(pools: Any) -> None:
    """Ants that fall for a fifth of a second under twice the gravity, of which randomisation adds 1 m/s²."""
    settings = ("task.randomize=True", "task.randomization.gravity.range=[1,1]", "task.randomization.mass=null")
    _, high = pools("task=Ant", "+gap=gravity_double", "simulator/low=mujoco", *settings)
    assert isinstance(high.simulator, MujocoSimulator)
    qpos = high.simulator.qpos.clone()
    qpos[:, 2] = 50.0
    high.simulator.set_state(torch.arange(8), qpos, torch.zeros(8, high.simulator.qvel.shape[1]))
    for _ in range(12):
        high.simulator.step(torch.zeros(8, 8), 8)
    # The asset's gravity is -9.81; the gravity that was drawn is (1, 1, 1).
    expected = torch.tensor([1.0, 1.0, -2 * 9.81 + 1.0]) * 12 / 60
    assert torch.allclose(high.simulator.qvel[:, :3].mean(0), expected, atol=0.05)


# Runs ----------------------------------------------------------------------------------------------------------------

FEW = ("num_envs=16", "max_iterations=2", "simulator.high.threads=1", "train.params.config.minibatch_size=32")


@pytest.mark.slow
@pytest.mark.parametrize("gap", ["none", "mass_double"])
def test_a_gap_trains(gap: str, run_script: Run) -> None:
    result = run_script("train.py", "task=Cartpole", *FEW, f"+gap={gap}")
    assert result.returncode == 0, result.stderr


def test_a_run_reverses_the_low_return_only(compose_config: Compose) -> None:
    """The first rollout is that of the run with the right reward: same policy, same noise."""
    settings = ("task=Cartpole", "num_envs=16", "simulator/low=mujoco_reduced", "task.env.episodeLength=5")
    returns = []
    for gaps in ((), ("+gap=misleading",)):
        config = compose_config(*settings, *gaps, "simulator.high.threads=1", "train.params.config.minibatch_size=32")
        with closing(Trainer(Experiment(config))) as run:
            metrics = run.iterate()
            returns.append((metrics["return/low"], metrics["return/high"]))
    (low, high), (reversed_low, unchanged) = returns
    assert reversed_low == pytest.approx(-low) and low != 0.0
    assert unchanged == high


@pytest.mark.slow
def test_a_checkpoint_knows_its_changes(run_script: Run, tmp_path: Path) -> None:
    result = run_script("train.py", "task=Cartpole", *FEW, "+gap=gravity_half", "experiment=run")
    assert result.returncode == 0, result.stderr
    checkpoint = f"checkpoint={next(tmp_path.glob('runs/run_*'))}"
    elsewhere = run_script("evaluate.py", checkpoint, "num_envs=2")
    assert "had changes={'gravity': 0.5}; this simulator has changes={}" in elsewhere.stderr
    same = run_script("evaluate.py", checkpoint, "num_envs=2", "simulator.changes.gravity=0.5")
    assert same.returncode == 0 and "changes" not in same.stderr
    other = run_script("train.py", "task=Cartpole", *FEW, "+gap=gravity_double", "experiment=run", "resume=True")
    assert other.returncode == 2
    assert other.stderr.startswith("error: simulator.high.changes.gravity=2.0: the checkpoint was made with 0.5")
    transfer = run_script("transfer.py", checkpoint, "num_envs=2", "dial=[]", "simulators=[mujoco]")
    assert "(low) and mujoco with gravity=0.5 (high)" in transfer.stdout, transfer.stderr
