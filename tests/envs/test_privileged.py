"""Who sees what a task keeps for the critic: rsl_rl's critic does; policies, Gymnasium and Stable-Baselines3 do not."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box
from omegaconf import DictConfig
from stable_baselines3 import PPO
from toys import EPISODE, make_pool

from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.adapters.rsl_rl import RslRlVecEnv
from dualfid_robot.adapters.stable_baselines3 import StableBaselinesVecEnv
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.envs.task import State, Term
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.tasks.cartpole import Cartpole
from dualfid_robot.train.trainer import Trainer

ALL, POLICY = 17, 11


@pytest.mark.parametrize("tensors", [False, True])
def test_gymnasium_shows_the_policys_terms(cartpole: RobotModel, tensors: bool) -> None:
    env = PoolVectorEnv(make_pool(cartpole, 3), tensors)
    pool = env.pool
    assert pool.observations.shape == (3, ALL)
    assert env.single_observation_space == Box(-5, 5, (POLICY,), np.float32)
    assert env.observation_space == Box(-5, 5, (3, POLICY), np.float32)
    observations, _ = env.reset(seed=0)
    ends = 0
    for _ in range(2 * EPISODE):
        assert observations.shape == (3, POLICY)
        np.testing.assert_array_equal(np.asarray(observations), pool.observations[:, :POLICY].numpy())
        observations, *_, info = env.step(np.array([[0.7], [-0.5], [1.0]], np.float32))
        for row in np.flatnonzero(np.asarray(info["_final_obs"])) if info else ():
            last = np.asarray(info["final_obs"][row])
            np.testing.assert_array_equal(last, pool.final_observations[row, :POLICY].numpy())
            ends += 1
    assert ends >= 6


def test_arrays_are_the_callers_own(cartpole: RobotModel) -> None:
    env = PoolVectorEnv(make_pool(cartpole, 2))
    observations, _ = env.reset(seed=0)
    kept = observations.copy()
    env.step(np.ones((2, 1)))
    np.testing.assert_array_equal(observations, kept)


def test_rsl_rls_critic_sees_everything(cartpole: RobotModel) -> None:
    env = RslRlVecEnv(PoolVectorEnv(make_pool(cartpole, 3), tensors=True))
    before = env.get_observations()
    assert set(before.keys()) == {"policy", "critic"}
    kept = before.clone()
    after, *_ = env.step(torch.ones(3, 1))
    assert after["policy"].shape == (3, POLICY) and after["critic"].shape == (3, ALL)
    assert torch.equal(after["critic"], env.env.pool.observations)
    assert torch.equal(after["policy"], after["critic"][:, :POLICY])
    assert (before == kept).all() and not torch.equal(after["critic"], kept["critic"])


def test_stable_baselines_gets_the_policys_terms(cartpole: RobotModel) -> None:
    env = StableBaselinesVecEnv(PoolVectorEnv(make_pool(cartpole, 3)))
    assert env.observation_space.shape == (POLICY,)
    assert env.reset().shape == (3, POLICY)
    env.step_async(np.ones((3, 1)))
    assert env.step_wait()[0].shape == (3, POLICY)
    PPO("MlpPolicy", env, n_steps=4, batch_size=12, n_epochs=1, seed=0, device="cpu").learn(24)


def test_a_run_trains_an_asymmetric_critic(
    monkeypatch: pytest.MonkeyPatch, compose_config: Callable[..., DictConfig]
) -> None:
    observe = Cartpole.observe

    def observe_more(self: Cartpole, state: State) -> dict[str, torch.Tensor]:
        return observe(self, state) | {"elapsed": state.step / 500.0}

    monkeypatch.setattr(Cartpole, "observe", observe_more)
    monkeypatch.setattr(Cartpole, "privileged_terms", (Term("elapsed", 1),))
    settings = ["num_envs=32", "train.params.config.minibatch_size=128", "simulator/low=mujoco_reduced"]
    one_network = Experiment(compose_config("task=Cartpole", *settings, "train.params.network.separate=false"))
    with pytest.raises(ConfigError, match=r"train\.params\.network\.separate=False: must be true where a task has"):
        one_network.make_policy()
    trainer = Trainer(Experiment(compose_config("task=Cartpole", *settings)))
    metrics = [trainer.iterate() for _ in range(3)][-1]
    policy = trainer.policy
    trainer.close()
    actor, critic = (next(network.dual_layers()).weight for network in (policy.actor, policy.critic))
    assert actor.shape[1] == 4 and critic.shape[1] == 5  # two networks, by themselves
    assert policy.normalizer.mean[4] > 0.0
    assert all(math.isfinite(value) for key, value in metrics.items() if "smoothed" not in key)
