"""Stable-Baselines3 and rsl_rl on our environments: their contracts, and Cartpole learnt by both."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from rsl_rl.runners import OnPolicyRunner
from single_environment import SingleEnvironment
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor
from tensordict import TensorDict

from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.adapters.rsl_rl import RslRlVecEnv
from dualfid_robot.adapters.stable_baselines3 import StableBaselinesVecEnv
from dualfid_robot.errors import ConfigError

Make = Callable[..., PoolVectorEnv]
EPISODE = 4
SHORT = [f"task.env.episodeLength={EPISODE}"]
TARGET = 450  # of 500


def place(env: PoolVectorEnv, row: int, x: float, velocity: float) -> None:
    """Put one cart somewhere, its pole nearly upright."""
    env.pool.simulator.set_state(torch.tensor([row]), torch.tensor([[x, 0.1]]), torch.tensor([[velocity, 0.0]]))


def mean_return(env: PoolVectorEnv, act: Callable[[np.ndarray], np.ndarray]) -> float:
    """Mean undiscounted return of one complete episode in each environment."""
    observations, _ = env.reset(seed=1000)
    returns, running = np.zeros(env.num_envs), np.ones(env.num_envs, bool)
    while running.any():
        observations, rewards, terminated, truncated, _ = env.step(act(observations))
        returns += np.where(running, rewards, 0.0)
        running &= ~(terminated | truncated)
    return float(returns.mean())


def test_stable_baselines_sees_what_its_own_vector_environment_shows(make: Make) -> None:
    ours = make(num_envs=3, overrides=SHORT)
    env = StableBaselinesVecEnv(ours)
    singles = [make(num_envs=1, overrides=SHORT) for _ in range(3)]
    oracle = DummyVecEnv([lambda single=single: SingleEnvironment(single) for single in singles])
    assert env.observation_space == oracle.observation_space and env.action_space == oracle.action_space
    env.reset(), oracle.reset()
    states = [(2.99, 5.0), (2.9, 3.0), (0.0, 0.0)]
    restart, reasons = np.ones(3, bool), []
    for _ in range(3 * EPISODE):
        for row in np.flatnonzero(restart):
            place(ours, row, *states[row]), place(singles[row], 0, *states[row])
        actions = np.random.default_rng(0).uniform(-1, 1, (3, 1)).astype(np.float32)
        observations, rewards, restart, infos = env.step(actions)
        their_observations, their_rewards, their_ends, their_infos = oracle.step(actions)
        np.testing.assert_array_equal(restart, their_ends)
        np.testing.assert_array_equal(rewards, their_rewards)
        np.testing.assert_array_equal(observations[~restart], their_observations[~restart])
        for row in range(3):
            if restart[row]:
                assert infos[row].keys() == their_infos[row].keys()
                assert infos[row]["TimeLimit.truncated"] == their_infos[row]["TimeLimit.truncated"]
                expected = their_infos[row]["terminal_observation"]
                np.testing.assert_array_equal(infos[row]["terminal_observation"], expected)
                reasons.append(infos[row]["TimeLimit.truncated"])
            else:
                assert infos[row] == {}
    assert set(reasons) == {True, False}


def test_stable_baselines_seeds_the_next_reset_only(make: Make) -> None:
    env, twin = StableBaselinesVecEnv(make(num_envs=2)), StableBaselinesVecEnv(make(num_envs=2))
    env.seed(3), twin.seed(3)
    assert np.array_equal(env.reset(), twin.reset())
    first = env.reset()
    assert np.array_equal(first, twin.reset())
    assert not np.array_equal(first, env.reset())


def test_rows_have_no_attributes_of_their_own(make: Make) -> None:
    env = StableBaselinesVecEnv(make(num_envs=3))
    assert env.get_attr("num_envs", [0, 2]) == [3, 3] and not env.has_attr("gravity")
    for refused in (lambda: env.set_attr("x", 1), lambda: env.env_method("render")):
        with pytest.raises(NotImplementedError, match="rows of one batch"):
            refused()


def test_rsl_rl_gets_its_contract(make: Make) -> None:
    vector, twin = (make(num_envs=3, tensors=True, seed=4, overrides=SHORT) for _ in range(2))
    env = RslRlVecEnv(vector)
    assert (env.num_envs, env.num_actions, env.max_episode_length) == (3, 1, EPISODE)
    observations = env.get_observations()
    assert isinstance(observations, TensorDict) and observations.batch_size == (3,)
    place(vector, 1, 2.99, 5.0), place(twin, 1, 2.99, 5.0)
    for step in range(2 * EPISODE):
        actions = torch.full((3, 1), 0.3)
        before = observations["policy"].clone()
        result = env.step(actions)
        expected, rewards, terminated, truncated, _ = twin.step(actions)
        # rsl_rl stores the observations that it acted on after the step
        assert torch.equal(observations["policy"], before)
        observations = result[0]
        assert torch.equal(observations["policy"], expected) and torch.equal(result[1], rewards)
        assert torch.equal(result[2], terminated | truncated)
        assert torch.equal(result[3]["time_outs"], truncated)
        assert result[2].any() == (step in (0, 3, 4, 7))


def test_rsl_rl_can_spread_the_time_limits(make: Make) -> None:
    env = RslRlVecEnv(make(num_envs=3, tensors=True, overrides=SHORT))
    env.episode_length_buf = torch.randint_like(env.episode_length_buf, high=1) + torch.tensor([0, 2, 3])
    ends = [env.step(torch.zeros(3, 1))[3]["time_outs"].tolist() for _ in range(EPISODE)]
    assert ends == [[False, False, True], [False, True, False], [False] * 3, [True, False, False]]
    assert env.episode_length_buf.tolist() == [0, 2, 3]


def test_each_adapter_names_the_mode_that_it_needs(make: Make) -> None:
    with pytest.raises(ConfigError, match=r"tensors=True: .* allowed is False"):
        StableBaselinesVecEnv(make(num_envs=1, tensors=True))
    with pytest.raises(ConfigError, match=r"tensors=False: .* allowed is True"):
        RslRlVecEnv(make(num_envs=1))


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Networks this small gain nothing from a second thread, and lose much where other programs want the core."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_stable_baselines_ppo_learns_cartpole(make: Make, one_thread: None) -> None:
    env = VecMonitor(StableBaselinesVecEnv(make(num_envs=32)))
    sizes = {"n_steps": 32, "batch_size": 512, "n_epochs": 20}
    settings = {"learning_rate": lambda left: 2e-3 * left, "gamma": 0.98, "gae_lambda": 0.8}
    model = PPO("MlpPolicy", env, seed=1, device="cpu", **sizes, **settings)
    judge = make("Cartpole", "mujoco", num_envs=64)

    def act(observations: np.ndarray) -> np.ndarray:
        return model.predict(observations, deterministic=True)[0]

    assert mean_return(judge, act) < TARGET / 2
    model.learn(40_000)
    assert mean_return(judge, act) >= TARGET
    theirs, _ = evaluate_policy(model, VecMonitor(StableBaselinesVecEnv(judge)), n_eval_episodes=64)
    assert theirs >= TARGET


RSL_RL: dict[str, Any] = {
    "num_steps_per_env": 32,
    "save_interval": 1000,
    "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
    "actor": {
        "class_name": "MLPModel",
        "hidden_dims": [32, 32],
        "distribution_cfg": {"class_name": "GaussianDistribution", "init_std": 1.0},
    },
    "critic": {"class_name": "MLPModel", "hidden_dims": [32, 32]},
    "algorithm": {"class_name": "PPO", "learning_rate": 1e-3, "entropy_coef": 0.0, "use_clipped_value_loss": False},
}


@pytest.mark.slow
def test_rsl_rls_runner_learns_cartpole(make: Make, one_thread: None) -> None:
    torch.manual_seed(1)
    env = RslRlVecEnv(make(num_envs=256, seed=1, tensors=True))
    runner = OnPolicyRunner(env, copy.deepcopy(RSL_RL))  # it changes its settings
    judge = make("Cartpole", "mujoco", num_envs=64)

    @torch.no_grad()
    def act(observations: np.ndarray) -> np.ndarray:
        policy = runner.get_inference_policy()
        return policy(TensorDict({"policy": torch.from_numpy(observations)}, batch_size=[64])).numpy()

    assert mean_return(judge, act) < TARGET / 2
    runner.learn(60, init_at_random_ep_len=True)
    assert mean_return(judge, act) >= TARGET
    env.step(torch.zeros(256, 1))  # the runner's inference mode has left no tensor behind that cannot be written
