"""Classes with the interfaces of other repositories as tasks of ours: trained in two simulators, resumed, evaluated."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot import make_vec
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import evaluate
from dualfid_robot.isaacgym.attributes import remembered
from dualfid_robot.isaacgym.pool import GymPool
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.simulators.registry import engine_class
from dualfid_robot.train.trainer import Trainer
from dualfid_robot.transfer.matrix import Matrix, TransferRequest
from dualfid_robot.transfer.perturbations import parse_perturbations

REPOSITORY = Path(__file__).parent / "repository"
STYLES = ("LeggedRobot", "VecTask")

Compose = Callable[..., DictConfig]


@pytest.fixture
def arguments(walker: Path, pole: Path) -> dict[str, list[str]]:
    """The command line of a task of each style."""
    common = [f"task.env.folders=[{REPOSITORY}]", "num_envs=16"]
    return {
        "LeggedRobot": [
            *("task=isaacgym.LeggedRobot", "task.env.taskClass=walker:Walker", "task.env.taskConfig=walker:WalkerCfg"),
            *(f"+task.env.settings.asset.file={walker}", "task.env.measures=[_reward_standing]", *common),
            "train.params.config.minibatch_size=192",
        ],
        "VecTask": [
            *("task=isaacgym.VecTask", f"task.env.taskClass={REPOSITORY}/pole.py:Pole"),
            *("task.env.taskConfig=cfg/task/Pole.yaml", f"+task.env.settings.env.asset={pole}", *common),
            "train.params.config.minibatch_size=128",
        ],
    }


@pytest.fixture(params=STYLES)
def experiment(request: pytest.FixtureRequest, arguments: dict[str, list[str]], compose_config: Compose) -> Experiment:
    return Experiment(compose_config(*arguments[request.param], "max_iterations=4", "allocation=schedule"))


@pytest.fixture
def pool(experiment: Experiment) -> Iterator[GymPool]:
    pool = experiment.make_pool(experiment.high_engine, 6, seed=3)
    assert isinstance(pool, GymPool)
    yield pool
    pool.simulator.close()


def test_what_the_class_says_becomes_the_tasks_settings(experiment: Experiment) -> None:
    task, walks = experiment.make_task(), experiment.task.name == "isaacgym.LeggedRobot"
    assert experiment.task.sim.dt == pytest.approx(0.02)
    assert task.config.episodeLength == (51 if walks else 40)
    assert (task.num_observations, task.num_privileged, task.num_actions) == ((20, 2, 4) if walks else (4, 0, 1))
    assert task.action_mapping.clip == (10.0 if walks else 1.0)
    assert experiment.robot.feet == (("0/FL_foot", "0/FR_foot", "0/RL_foot", "0/RR_foot") if walks else ())


def test_feet_stand_in_pybullet(arguments: dict[str, list[str]], compose_config: Compose) -> None:
    """A walker of 10.4 kg sinks 2 mm on its four feet, in the engine that makes contacts of springs."""
    overrides = [*arguments["LeggedRobot"], "simulator/low=pybullet", "simulator.low.pybullet.workers=1"]
    experiment = Experiment(compose_config(*overrides))
    (low,) = experiment.low_engines
    stiffness, damping = low["contact_stiffness"], low["contact_damping"]
    assert stiffness == pytest.approx(10.4 * 9.81 / 4 / 0.002, rel=0.01)
    assert damping == pytest.approx(2 * (stiffness * 2.6) ** 0.5, rel=0.01)
    (chosen,) = Experiment(compose_config(*overrides, "+task.simulators.pybullet.contact_stiffness=7")).low_engines
    assert (chosen["contact_stiffness"], chosen["contact_damping"]) == (7, damping)

    with pytest.raises(ConfigError, match="two of them are one link"):
        engine_class("pybullet").check_robot(experiment.robot, ("0/FL_leg", "0/FL_foot"))

    heights = []
    for settings in (experiment.high_engine, low):
        pool = experiment.make_pool(settings, 2, seed=3)
        for _ in range(40):
            pool.step(torch.zeros(2, 4))
        heights.append(pool.simulator.qpos[:, 2].mean())
        pool.simulator.close()
    assert abs(heights[0] - heights[1]) < 0.005


def test_it_trains_in_two_simulators(experiment: Experiment) -> None:
    trainer = Trainer(experiment)
    low, high = trainer.env.pools
    assert low.simulator.config.contacts == "feet" and high.simulator.config.contacts == "full"  # type: ignore[attr-defined]
    assert low.simulator is not high.simulator
    metrics = [trainer.iterate() for _ in range(4)]
    trainer.close()
    rows = [(row["allocation/n_low"], row["allocation/n_high"]) for row in metrics]
    assert all(low + high == 16 for low, high in rows) and len(set(rows)) > 1
    assert all(np.isfinite(list(row.values())).all() for row in metrics)
    assert all("return/low" in row for row in metrics[2:])
    if experiment.task.name == "isaacgym.LeggedRobot":
        assert 0.0 < metrics[-1]["measure__reward_standing/high"] <= 1.0


def test_a_resumed_run_is_the_same_to_the_bit(experiment: Experiment, tmp_path: Path) -> None:
    straight = Trainer(experiment)
    for _ in range(4):
        straight.iterate()
    first = Trainer(experiment)
    for _ in range(2):
        first.iterate()
    first.save(tmp_path / "half.pth")
    first.close()
    second = Trainer(experiment)
    second.resume(tmp_path / "half.pth")
    for _ in range(2):
        second.iterate()
    for name, value in straight.policy.state_dict().items():
        assert torch.equal(value, second.policy.state_dict()[name]), name
    straight.close()
    second.close()


def test_a_pool_says_what_the_class_says(experiment: Experiment) -> None:
    """The oracle is a second instance of the class, stepped by hand with the same random numbers. A third one, which
    never resets, shows the last observations of episodes."""
    ours = experiment.make_pool(experiment.high_engine, 6, seed=3, reward_factor=2.0)
    theirs, endless = (experiment.make_pool(experiment.high_engine, 6, seed=3) for _ in range(2))
    assert isinstance(ours, GymPool) and isinstance(theirs, GymPool) and isinstance(endless, GymPool)
    if experiment.task.name == "isaacgym.LeggedRobot":
        endless.env.reset_idx = lambda env_ids: None
    columns = ours.task.num_observations - ours.task.num_privileged
    generator = torch.Generator().manual_seed(0)
    ends = 0
    for _ in range(60):
        actions = torch.randn(6, ours.task.num_actions, generator=generator)
        endless.load_state_dict(ours.state_dict())
        with endless._numbers.drawn():
            final, *_ = endless.env.step(actions)
        ours.step(actions)
        with theirs._numbers.drawn():
            shown, *_ = theirs.env.step(actions)
        env = theirs.env
        torch.testing.assert_close(ours.observations[:, :columns], shown["obs"] if isinstance(shown, dict) else shown)
        torch.testing.assert_close(ours.reward, 2.0 * env.rew_buf)
        timed_out = env.extras["time_outs"] if isinstance(shown, dict) else env.time_out_buf
        assert torch.equal(ours.truncated, env.reset_buf.bool() & timed_out)
        assert torch.equal(ours.terminated, env.reset_buf.bool() & ~timed_out)
        ended = ours.terminated | ours.truncated
        ends += int(ended.sum())
        critics = [] if isinstance(final, dict) else [endless.env.privileged_obs_buf]
        last = torch.cat([final["obs"] if isinstance(final, dict) else final, *critics], 1)
        assert torch.equal(ours.final_observations[ended], last[ended])
    mine, untouched = remembered(ours.env), remembered(theirs.env)
    assert mine.keys() == untouched.keys()
    for path, value in mine.items():
        same = torch.equal(value, untouched[path]) if isinstance(value, torch.Tensor) else value == untouched[path]
        assert same, path
    statistics = ours.take_statistics()
    assert ends == len(statistics.returns) > 0 and statistics.env_steps == 360
    for pool in (ours, theirs, endless):
        pool.simulator.close()


def test_frozen_environments_stay_as_they_are(pool: GymPool) -> None:
    actions = torch.ones(6, pool.task.num_actions)
    for _ in range(5):
        pool.step(actions)
    kept = {name: values[4:].clone() for name, values in vars(pool.env).items() if _has_rows(values)}
    qpos, shown = pool.simulator.qpos[4:].clone(), pool.observations[4:].clone()
    assert len(kept) > 4
    for _ in range(70):  # longer than an episode, so their code resets every row
        pool.step(actions[:4])
    assert torch.equal(pool.simulator.qpos[4:], qpos) and torch.equal(pool.observations[4:], shown)
    for name, values in kept.items():
        assert torch.equal(getattr(pool.env, name)[4:], values), name
    pool.step(actions)
    assert not torch.equal(pool.simulator.qpos[4:], qpos)
    assert (pool.episode_step[4:] == 6).all()


def _has_rows(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.ndim > 0 and len(value) == 6


def test_a_pool_draws_no_random_numbers_of_others(pool: GymPool) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(3), np.random.rand(3)
    torch.manual_seed(5)
    np.random.seed(5)
    pool.step(torch.zeros(6, pool.task.num_actions))
    assert torch.equal(torch.rand(3), expected[0]) and (np.random.rand(3) == expected[1]).all()


def test_a_world_that_fails_ends_its_episode(pool: GymPool) -> None:
    pool.step(torch.zeros(6, pool.task.num_actions))
    qvel = pool.simulator.qvel.clone()
    qvel[2] = torch.nan
    pool.simulator.set_state(torch.arange(6), pool.simulator.qpos.clone(), qvel)
    pool.step(torch.zeros(6, pool.task.num_actions))
    assert pool.terminated.tolist() == [False, False, True, False, False, False] and pool.reward[2] == 0.0
    pool.step(torch.zeros(6, pool.task.num_actions))
    assert torch.isfinite(pool.observations).all() and not pool.terminated.any()
    assert pool.take_statistics().failures == 1


def test_it_is_evaluated_and_transferred(experiment: Experiment, tmp_path: Path) -> None:
    trainer = Trainer(experiment)
    trainer.iterate()
    trainer.save(tmp_path / "policy.pth")
    trainer.close()
    loaded, policy = load_policy(tmp_path / "policy.pth")
    results = []
    for _ in range(2):
        pool = loaded.make_pool(loaded.high_engine, 5, seed=1)
        pool.seed(1)
        results.append(evaluate(policy_agent(policy, "adapted"), pool))
        pool.simulator.close()
    assert (results[0].returns == results[1].returns).all() and (results[0].lengths > 0).all()

    request = TransferRequest(
        (tmp_path / "policy.pth",), ("mujoco", "physx"), (1.0,), parse_perturbations(["mass=1.5"]), 5, 1
    )
    matrix = Matrix(request)
    assert all("contract holds" in contract.line() for contract in matrix.contracts), matrix.contracts
    here, heavier, abroad, _ = matrix.cells()
    assert here.evaluation is not None and (here.evaluation.returns == results[0].returns).all()
    assert abroad.evaluation is not None and not (abroad.evaluation.returns == here.evaluation.returns).all()
    assert heavier.evaluation is None and "draws the parameters of its worlds itself" in heavier.unsupported


def test_as_a_vector_environment_of_gymnasium(arguments: dict[str, list[str]]) -> None:
    """Gymnasium's own checker has the same task in tests/adapters."""
    for style in STYLES:
        named, *overrides = arguments[style]
        vector = make_vec(named.removeprefix("task="), num_envs=3, overrides=overrides[:-2])
        first, _ = vector.reset(seed=4)
        for _ in range(60):
            shown, reward, terminated, truncated, info = vector.step(vector.action_space.sample())
            assert shown in vector.observation_space and reward.shape == (3,)
            ended = terminated | truncated
            assert (info["_final_obs"] == ended).all() if ended.any() else not info
        assert (vector.reset(seed=4)[0] == first).all()
        vector.close()


@pytest.mark.parametrize(
    ("style", "override", "says"),
    [
        ("LeggedRobot", "task.env.interface=legged", r"task.env.interface=legged: allowed are \['legged_robot', 'vec"),
        ("LeggedRobot", "task.env.taskClass=walker:Runner", "task.env.taskClass=walker:Runner: walker has no Runner"),
        ("LeggedRobot", "task.env.taskClass=walker", "module:name or file.py:name is expected"),
        ("LeggedRobot", "task.env.taskClass=runner:Runner", "cannot be imported: No module named 'runner'"),
        ("LeggedRobot", "task.env.taskClass=walker:torch", "task.env.taskClass=walker:torch: is not a class"),
        ("LeggedRobot", "task.env.taskClass=walker:WalkerCfg", "is built from .*; this interface expects"),
        ("LeggedRobot", "task.env.taskConfig=''", "task.env.taskConfig: is required"),
        ("LeggedRobot", "task.env.folders=[/nowhere]", "task.env.folders=/nowhere: no such folder"),
        ("LeggedRobot", "+task.env.settings.sim.dtt=1", "task.env.settings.sim.dtt=1: their configuration has none"),
        ("LeggedRobot", "task.env.measures=[height]", "task.env.measures=height: Walker has no such attribute"),
        ("LeggedRobot", "+task.env.episodeLength=7", "task.env.episodeLength=7: their class says 51"),
        ("LeggedRobot", "+task.env.colour=red", "task.env.colour=red: no such setting"),
        ("LeggedRobot", "task.name=mujoco.Walker", r"task=mujoco.Walker: allowed before the dot are \['isaacgym'\]"),
        ("VecTask", "task.env.taskConfig=cfg/task/Cart.yaml", "task.env.taskConfig=cfg/task/Cart.yaml: no such file"),
        ("VecTask", "+task.env.settings.env.mass=1", "task.env.settings.env.mass=1: their configuration has none"),
    ],
)
def test_a_wrong_yaml_is_one_line(
    style: str, override: str, says: str, arguments: dict[str, list[str]], compose_config: Compose
) -> None:
    with pytest.raises(ConfigError, match=says) as raised:
        Experiment(compose_config(*arguments[style], override)).make_task()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (["task.randomize=True"], "task.randomize=True: walker:Walker keeps its worlds"),
        (
            ["train.params.config.control_variate=True"],
            "train.params.config.control_variate=True: walker:Walker keeps its worlds",
        ),
    ],
)
def test_what_the_class_cannot_give_is_refused(
    override: list[str], says: str, arguments: dict[str, list[str]], compose_config: Compose
) -> None:
    with pytest.raises(ConfigError, match=says):
        Trainer(Experiment(compose_config(*arguments["LeggedRobot"], *override)))


def test_from_the_command_line(
    arguments: dict[str, list[str]], run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    trained = run_script("train.py", *arguments["VecTask"], "max_iterations=2", "experiment=pole")
    assert trained.returncode == 0, trained.stderr
    (folder,) = (Path(line.split()[-1]) for line in trained.stderr.splitlines() if "checkpoints, metrics" in line)
    refused = run_script("export.py", f"checkpoint={folder}")
    assert refused.returncode == 2 and "cannot be exported" in refused.stderr and "Traceback" not in refused.stderr
    refused = run_script("train.py", *arguments["VecTask"], "export=True")
    assert refused.returncode == 2 and "export=True: " in refused.stderr
    evaluated = run_script("evaluate.py", f"checkpoint={folder}", "num_envs=4", "simulator=mujoco_reduced")
    assert (
        evaluated.returncode == 0 and "isaacgym.VecTask, adapted policy in mujoco_reduced: return" in evaluated.stdout
    )


def test_state_survives_a_checkpoint_in_views_and_lists(pool: GymPool) -> None:
    """What an instance remembers is found again in a second one, whose tensors are still views of each other."""
    for _ in range(7):
        pool.step(torch.ones(6, pool.task.num_actions))
    state = pool.state_dict()
    other = pool.task.make_pool(simulator_settings("mujoco", {}), 6, 9)  # type: ignore[attr-defined]
    other.load_state_dict(state)
    mine, theirs = remembered(pool.env), remembered(other.env)
    assert mine.keys() == theirs.keys()
    for path, value in mine.items():
        same = torch.equal(value, theirs[path]) if isinstance(value, torch.Tensor) else value == theirs[path]
        assert same, path
    other.env.dof_state[:] = 3.0
    assert (other.env.dof_pos == 3.0).all()
    other.simulator.close()


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["UNITREE_RL_GYM", "ISAACGYMENVS"])
def test_the_real_classes_train_in_two_simulators(
    variable: str, run_script: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """Needs the repository's folder in an environment variable, and its other packages in PYTHONPATH."""
    folder = os.environ.get(variable)
    if folder is None:
        pytest.skip(f"{variable} names no folder")
    if variable == "ISAACGYMENVS":
        own = ["task=isaacgym.VecTask", "task.env.taskClass=isaacgymenvs.tasks.ant:Ant"]
        own += ["task.env.taskConfig=isaacgymenvs/cfg/task/Ant.yaml", "train.params.config.minibatch_size=512"]
    else:
        own = ["task=isaacgym.LeggedRobot", "task.env.taskClass=legged_gym.envs:LeggedRobot"]
        own += ["task.env.taskConfig=legged_gym.envs.go2.go2_config:GO2RoughCfg"]
        own += ["train.params.config.minibatch_size=384"]
    result = run_script("train.py", *own, f"task.env.folders=[{folder}]", "num_envs=64", "max_iterations=2")
    assert result.returncode == 0, result.stderr
