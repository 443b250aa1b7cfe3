"""Gymnasium's VectorEnv over a pool: its documented rules, its own checkers, seeds, memory, wrong input."""

from __future__ import annotations

import copy
import itertools
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.error import ClosedEnvironmentError
from gymnasium.utils.env_checker import check_env, data_equivalence
from gymnasium.utils.passive_env_checker import data_shares_objects
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers.vector import NormalizeReward, RecordEpisodeStatistics
from hydra import initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from single_environment import SingleEnvironment

import dualfid_robot
from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.machine import ASSETS, CONFIG_DIR
from dualfid_robot.errors import ConfigError

ROOT = Path(__file__).parents[2]

Make = Callable[..., PoolVectorEnv]
DT = 1 / 60
EPISODE = 4
SHORT = [f"task.env.episodeLength={EPISODE}"]
LEAVING = ([2.99, 0.0], [5.0, 0.0])  # the cart crosses its bound, 3 m, in the next control period


def place(env: PoolVectorEnv, row: int, state: tuple[list[float], list[float]]) -> None:
    """Put one environment into a state, qpos and qvel."""
    env.pool.simulator.set_state(torch.tensor([row]), torch.tensor([state[0]]), torch.tensor([state[1]]))


def roll(env: PoolVectorEnv, steps: int, seed: int) -> list[tuple[Any, ...]]:
    """Results of random steps."""
    generator = np.random.default_rng(seed)
    return [env.step(generator.uniform(-1, 1, env.action_space.shape).astype(np.float32)) for _ in range(steps)]


def test_spaces_are_the_tasks_bounds(make: Make) -> None:
    env = make("Ant", num_envs=3, overrides=["task.env.clipActions=0.5", "task.env.clipObservations=7"])
    assert env.single_observation_space == gymnasium.spaces.Box(-7, 7, (60,), np.float32)
    assert env.single_action_space == gymnasium.spaces.Box(-0.5, 0.5, (8,), np.float32)
    assert env.observation_space == gymnasium.spaces.Box(-7, 7, (3, 60), np.float32)
    assert env.action_space == gymnasium.spaces.Box(-0.5, 0.5, (3, 8), np.float32)
    observations, info = env.reset(seed=1)
    assert observations in env.observation_space and info == {}
    for observations, rewards, terminated, truncated, _ in roll(env, 20, seed=1):
        assert observations in env.observation_space
        assert rewards.shape == terminated.shape == truncated.shape == (3,)
        assert rewards.dtype == np.float32 and terminated.dtype == truncated.dtype == np.bool_


def test_gymnasiums_checker_has_nothing_to_say(make: Make) -> None:
    """Gymnasium has a checker of single environments only; row 0 must pass it without even a warning."""
    for task in ("Cartpole", "Ant"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            check_env(SingleEnvironment(make(task, num_envs=1)), skip_render_check=True)


def test_gymnasiums_checker_takes_a_task_of_isaac_gym() -> None:
    repository = Path(__file__).parents[1] / "isaacgym" / "repository"
    overrides = [
        *(f"task.env.folders=[{repository}]", "task.env.taskClass=pole:Pole", "task.env.taskConfig=cfg/task/Pole.yaml"),
        f"+task.env.settings.env.asset={ASSETS / 'cartpole.xml'}",
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vector = dualfid_robot.make_vec("isaacgym.VecTask", num_envs=1, overrides=overrides)
        check_env(SingleEnvironment(vector), skip_render_check=True)


def test_the_same_as_gymnasiums_own_vector_environment(make: Make) -> None:
    """The oracle is Gymnasium's SyncVectorEnv over single environments in the same states."""
    ours = make(num_envs=4, overrides=SHORT)
    singles = [make(num_envs=1, overrides=SHORT) for _ in range(4)]
    theirs = SyncVectorEnv(
        [lambda env=env: SingleEnvironment(env) for env in singles], autoreset_mode=AutoresetMode.SAME_STEP
    )
    assert theirs.observation_space == ours.observation_space and theirs.action_space == ours.action_space
    assert theirs.metadata["autoreset_mode"] is ours.metadata["autoreset_mode"]
    assert data_equivalence(ours.reset(seed=1)[1], theirs.reset(seed=1)[1])
    generator = np.random.default_rng(0)
    states = [LEAVING, ([2.9, 0.1], [3.0, 0.0]), ([0.0, 0.1], [0.0, 1.0]), ([0.0, -0.1], [0.0, 0.0])]
    restart, ends = [True] * 4, 0
    for _ in range(3 * EPISODE):
        for row in np.flatnonzero(restart):  # initial states are random; these are the same on both sides
            place(ours, row, states[row])
            place(singles[row], 0, states[row])
        actions = generator.uniform(-2, 2, (4, 1)).astype(np.float32)
        observations, *mine, info = ours.step(actions)
        their_observations, *their_results, their_info = theirs.step(actions)
        restart = mine[1] | mine[2]
        for value, their_value in zip(mine, their_results, strict=True):
            np.testing.assert_array_equal(value, their_value)
        np.testing.assert_array_equal(observations[~restart], their_observations[~restart])
        assert data_equivalence(info, their_info, exact=True)
        ends += restart.sum()
    assert ends > 10


def test_an_episode_followed_by_hand(make: Make) -> None:
    env = make(num_envs=3, overrides=SHORT)
    env.reset(seed=0)
    idle = np.zeros((3, 1), np.float32)
    place(env, 1, LEAVING)
    observations, rewards, terminated, truncated, info = env.step(idle)
    assert terminated.tolist() == [False, True, False] and not truncated.any()
    assert rewards[1] == -2.0 and (rewards[[0, 2]] > 0.9).all()
    assert sorted(info) == ["_final_info", "_final_obs", "final_info", "final_obs"]
    assert info["_final_obs"].tolist() == info["_final_info"].tolist() == [False, True, False]
    assert info["final_info"] == {} and info["final_obs"][0] is None and info["final_obs"][2] is None
    np.testing.assert_allclose(info["final_obs"][1], [2.99 + 5 * DT, 5.0, 0.0, 0.0], atol=2e-3)
    assert np.abs(observations[1]).max() < 0.25  # a new episode's initial state
    for _ in range(EPISODE - 2):
        observations, _, terminated, truncated, info = env.step(idle)
        assert not terminated.any() and not truncated.any() and info == {}
    before = observations
    observations, _, terminated, truncated, info = env.step(idle)
    assert truncated.tolist() == [True, False, True] and not terminated.any()
    for row in (0, 2):  # the motion went on for one more period before the new episode
        np.testing.assert_allclose(
            info["final_obs"][row][[0, 2]], (before[row] + DT * before[row, [1, 1, 3, 3]])[[0, 2]], atol=2e-3
        )
        assert not np.allclose(observations[row], info["final_obs"][row], atol=1e-2)
    *_, truncated, _ = env.step(idle)
    assert truncated.tolist() == [False, True, False]  # the second episode of row 1 began one step late


def test_seeds(make: Make) -> None:
    first, second = make(num_envs=3, seed=5), make(num_envs=3, seed=5)
    other = make(num_envs=3, seed=6)
    assert np.array_equal(first.reset()[0], second.reset()[0])
    assert not np.array_equal(first.reset()[0], other.reset()[0])
    start = first.reset(seed=9)[0]
    again = first.reset()[0]
    assert not np.array_equal(start, again)
    roll(second, 7, seed=0)
    assert np.array_equal(second.reset(seed=9)[0], start) and np.array_equal(second.reset()[0], again)
    assert first.np_random_seed == 9
    for a, b in zip(roll(first, 30, seed=1), roll(second, 30, seed=1), strict=True):
        assert data_equivalence(a, b, exact=True)
    assert len({tuple(row) for row in start.tolist()}) == 3


def test_what_is_returned_belongs_to_the_caller(make: Make) -> None:
    env, twin = make("Ant", num_envs=4, overrides=SHORT), make("Ant", num_envs=4, overrides=SHORT)
    results: list[tuple[Any, ...]] = [env.reset(seed=1)]
    twin.reset(seed=1)
    actions = np.zeros((4, 8), np.float32)
    copies: list[tuple[Any, ...]] = []
    for step in range(3 * EPISODE):
        actions[:] = 0.1 * step
        results.append(env.step(actions))
        copies.append(copy.deepcopy(results[-1]))
        expected = twin.step(np.full((4, 8), 0.1 * step, np.float32))
        assert data_equivalence(results[-1], expected, exact=True)
        actions[:] = 7.0  # nobody may still be reading them
        results[-1][0][:] = np.nan  # nor the observations
        if info := results[-1][-1]:
            assert not np.shares_memory(info["_final_obs"], info["_final_info"])
    for result, kept in zip(results[1:], copies, strict=True):
        assert np.isnan(result[0]).all() and data_equivalence(result[1:], kept[1:], exact=True)
    for a, b in itertools.combinations(results, 2):
        assert not data_shares_objects(a, b)
        assert not any(np.shares_memory(x, y) for x in a[:-1] for y in b[:-1])


def test_actions_are_clipped_and_without_gradient(make: Make) -> None:
    env, twin = make("Ant", num_envs=2), make("Ant", num_envs=2)
    env.reset(seed=1), twin.reset(seed=1)
    wild, tame = env.step(torch.full((2, 8), 30.0, requires_grad=True)), twin.step(np.ones((2, 8)))
    assert data_equivalence(wild, tame, exact=True)


def test_tensors_are_the_pools_own_memory(make: Make) -> None:
    env = make(num_envs=3, seed=2, tensors=True, overrides=SHORT)
    arrays = make(num_envs=3, seed=2, overrides=SHORT)
    observations, _ = env.reset(seed=1)
    assert np.array_equal(observations.numpy(), arrays.reset(seed=1)[0])
    pool = env.pool
    assert observations.data_ptr() == pool.observations.data_ptr()
    ends = 0
    for step in range(3 * EPISODE):
        if step % 5 == 2:
            place(env, 1, LEAVING), place(arrays, 1, LEAVING)
        results = env.step(torch.full((3, 1), 0.5))
        *expected, expected_info = arrays.step(np.full((3, 1), 0.5, np.float32))
        owners = (pool.observations, pool.reward, pool.terminated, pool.truncated)
        for value, owner, array in zip(results, owners, expected, strict=False):
            assert value.data_ptr() == owner.data_ptr()
            assert np.array_equal(value.numpy(), array)
        info = results[-1]
        assert info["final_obs"].data_ptr() == pool.final_observations.data_ptr()
        ended = info["_final_obs"]
        assert torch.equal(ended, info["_final_info"]) and torch.equal(ended, results[2] | results[3])
        for row in ended.nonzero():
            assert np.array_equal(info["final_obs"][row[0]].numpy(), expected_info["final_obs"][row[0]])
            ends += 1
    assert ends > 6


def test_gymnasiums_wrappers_work_on_it(make: Make) -> None:
    env = make(num_envs=4, overrides=SHORT)
    statistics = RecordEpisodeStatistics(env)
    wrapped = NormalizeReward(statistics)
    wrapped.reset(seed=0)
    env.pool.take_statistics()
    episodes = 0
    for step in range(3 * EPISODE):
        if step == 1:
            place(env, 2, LEAVING)
        *_, info = wrapped.step(np.zeros((4, 1), np.float32))
        episodes += int(info["_episode"].sum()) if "_episode" in info else 0
    ours = env.pool.take_statistics()
    assert episodes == len(ours.returns) == statistics.episode_count
    np.testing.assert_allclose(list(statistics.return_queue), ours.returns, rtol=1e-6)
    assert list(statistics.length_queue) == ours.lengths.tolist()


def test_a_long_run_keeps_no_finished_episodes(make: Make) -> None:
    env = make(num_envs=1, overrides=["task.env.episodeLength=1"])
    for _ in range(1000):
        env.step(np.zeros((1, 1)))
    assert env.pool.take_statistics().env_steps < 256


def test_settings_are_those_of_the_command_line(make: Make, compose_config: Callable[..., Any]) -> None:
    config = compose_config("task=Cartpole")
    env = make(simulator="mujoco")
    assert env.num_envs == config.task.env.numEnvs
    assert env.pool.simulator.config.substeps == config.simulator.high.substeps
    changed = make(num_envs=2, overrides=["task.env.resetDist=1.5", "simulator.high.substeps=3"])
    assert changed.pool.task.config.resetDist == 1.5 and changed.pool.simulator.config.substeps == 3


def test_a_hydra_application_may_call_it(make: Make) -> None:
    with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
        outer = GlobalHydra.instance().hydra
        make(num_envs=1)
        assert GlobalHydra.instance().hydra is outer
    make(num_envs=1)
    assert not GlobalHydra.instance().is_initialized()


@pytest.mark.parametrize("simulator", ["mujoco", "mujoco_reduced", "pybullet"])
def test_any_simulator(simulator: str, make: Make) -> None:
    env = make("Ant", simulator, num_envs=2, seed=1)
    assert env.pool.simulator.name() == simulator_settings(simulator, {})["engine"]
    for observations, rewards, *_ in roll(env, 3, seed=1):
        assert observations in env.observation_space and np.isfinite(rewards).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "Foo"}, r"task=Foo: allowed are \['Ant', "),
        ({"task": "a=b"}, r"task=a=b: allowed are \['Ant', "),
        ({"simulator": "havok"}, r"simulator=havok: allowed are \['mujoco', "),
        ({"num_envs": 0}, "num_envs=0: must be a whole number of at least 1"),
        ({"num_envs": 2.5}, "num_envs=2.5: must be a whole number of at least 1"),
        ({"num_envs": True}, "num_envs=True: must be a whole number of at least 1"),
        ({"seed": "x"}, "seed=x: must be a whole number"),
        ({"device": "tpu"}, "sim_device=tpu"),
        ({"overrides": ["task.env.episodeLenght=3"]}, "task.env.episodeLenght=3: no such setting; did you mean"),
        (
            {"overrides": ["simulator.high.substeps=-1"]},
            "simulator.high.substeps=-1: must be",
        ),
        ({"overrides": ["task.env.resetDist=${nowhere}"]}, "nowhere"),
        ({"overrides": "num_envs=3"}, "overrides=num_envs=3: a list is expected"),
    ],
)
def test_wrong_settings_are_refused_by_name(settings: dict[str, Any], message: str, make: Make) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        make(**settings)
    assert "\n" not in str(caught.value)


def test_wrong_calls_are_refused_by_name(make: Make) -> None:
    env = make(num_envs=3)
    for shape in ((3,), (2, 1), (3, 2), (1, 3, 1)):
        with pytest.raises(ConfigError, match=r"allowed is \(3, 1\)"):
            env.step(np.zeros(shape))
    for seed in (-1, 2.0, [1, 2, 3], 2**63):
        with pytest.raises(ConfigError, match="seed="):
            env.reset(seed=seed)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"options={'low': 1}: allowed are none"):
        env.reset(options={"low": 1})
    env.close()
    env.close()
    with pytest.raises(ClosedEnvironmentError):
        env.reset()
    with pytest.raises(ClosedEnvironmentError):
        env.step(np.zeros((3, 1)))


def run_python(code: str) -> str:
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_the_package_stays_light() -> None:
    heavy = "('torch', 'numpy', 'gymnasium', 'mujoco', 'hydra')"
    code = f"import sys, dualfid_robot; print([m for m in {heavy} if m in sys.modules]); dualfid_robot.make_vec"
    assert run_python(code) == "[]"
    with pytest.raises(AttributeError, match="make_vector"):
        dualfid_robot.make_vector  # noqa: B018


@pytest.mark.parametrize(
    ("module", "missing", "hint"),
    [
        ("dualfid_robot.adapters.gymnasium", "gymnasium", r"pip install 'dualfid_robot\[gymnasium\]'"),
        ("dualfid_robot.adapters.stable_baselines3", "stable_baselines3", "pip install stable-baselines3"),
        ("dualfid_robot.adapters.rsl_rl", "rsl_rl", "pip install rsl-rl-lib"),
    ],
)
def test_a_missing_library_is_one_line(module: str, missing: str, hint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name == missing or name.startswith(f"{missing}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ConfigError, match=f"{missing} is not installed: {hint}"):
        __import__(module)
