"""What the second policy costs in a PPO update, and the update beside rsl_rl's.

    python benchmarks/ppo_update.py

All have the same batch (observation 60, action 8), 4 epochs and the same number of mini-batches. The networks are
256-128-64 ELU, actor and critic separate:

- dual: `DualPPO.update`, half and nine tenths of the rows low (in blocks of 32, as the allocator gives them);
- dual, low rows only: the same update of one policy, which tells what the second one costs;
- rsl_rl: `PPO.update` of rsl-rl-lib as it comes (float32) and with its mixed precision. Needs the extra `benchmark`.

Targets: dual ≤ 1.10 of low rows only; dual ≤ 0.6 rsl_rl.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel
from rsl_rl.storage import RolloutStorage as RslStorage
from tensordict import TensorDict
from timing import measure_in_turn, rounds_argument

from dualfid_robot.algorithms.dual_ppo import DualPPO, read_back
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.rollout import RolloutStorage
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.policies.actor_critic import DualActorCritic

NUM_OBS, NUM_ACTIONS, HORIZON, HIDDEN = 60, 8, 16, (256, 128, 64)


def filled_storage(algorithm: DualPPO, num_envs: int, n_low: int) -> RolloutStorage:
    """One rollout with random observations; a reward that actions influence, so that the update has something to do."""
    generator = torch.Generator().manual_seed(0)
    storage = algorithm.make_storage(num_envs)
    storage.begin(n_low)
    never = torch.zeros(num_envs, dtype=torch.bool)
    for _ in range(HORIZON):
        obs = torch.randn(num_envs, NUM_OBS, generator=generator)
        drawn = algorithm.policy.act(obs, n_low, generator)
        rewards = -(drawn[0] - obs[:, :NUM_ACTIONS]).square().mean(1)
        storage.add(obs, *drawn, rewards, never, never, obs)
    algorithm.compute_returns(storage, obs)
    return storage


def our_update(policy: DualActorCritic, config: PPOConfig, num_envs: int, n_low: int) -> Callable[[], object]:
    algorithm = DualPPO(policy, config)
    storage = filled_storage(algorithm, num_envs, n_low)
    return lambda: read_back(algorithm.update(storage, 0.0))


def rsl_rl_update(num_envs: int, minibatches: int, mixed_precision: bool) -> Callable[[], object]:
    obs = TensorDict({"policy": torch.randn(num_envs, NUM_OBS)}, batch_size=[num_envs])
    groups = {"actor": ["policy"], "critic": ["policy"]}
    gaussian = {"class_name": "rsl_rl.modules.distribution:GaussianDistribution", "init_std": 1.0}
    actor = MLPModel(obs, groups, "actor", NUM_ACTIONS, HIDDEN, "elu", True, gaussian)
    critic = MLPModel(obs, groups, "critic", 1, HIDDEN, "elu", True)
    storage = RslStorage("rl", num_envs, HORIZON, obs, [NUM_ACTIONS])
    algorithm = PPO(
        actor, critic, storage, num_learning_epochs=4, num_mini_batches=minibatches, learning_rate=3e-4,
        entropy_coef=0.0, use_mixed_precision=mixed_precision,
    )  # fmt: skip
    with torch.no_grad():
        for _ in range(HORIZON):
            obs = TensorDict({"policy": torch.randn(num_envs, NUM_OBS)}, batch_size=[num_envs])
            actions = algorithm.act(obs)
            rewards = -(actions - obs["policy"][:, :NUM_ACTIONS]).square().mean(1)
            algorithm.process_env_step(obs, rewards, torch.zeros(num_envs), {})
        algorithm.compute_returns(obs)
    return algorithm.update


def main() -> None:
    rounds = rounds_argument(7)
    with hydra_apart():
        settings = Experiment(compose_config(["task=Ant", "train.params.config.low_passes=1"])).ppo
    for num_envs, minibatches in ((1024, 4), (4096, 2)):
        samples = num_envs * HORIZON
        for mixed_precision in ("auto", False):
            config = replace(settings, minibatch_size=samples // minibatches, mixed_precision=mixed_precision)
            kind = DualActorCritic
            actions = {
                "dual 0.5": our_update(kind(NUM_OBS, NUM_ACTIONS), config, num_envs, num_envs // 2),
                "dual 0.9": our_update(kind(NUM_OBS, NUM_ACTIONS), config, num_envs, num_envs * 9 // 320 * 32),
                "dual, low rows only": our_update(kind(NUM_OBS, NUM_ACTIONS), config, num_envs, num_envs),
                "rsl_rl": rsl_rl_update(num_envs, minibatches, False),
            }
            if mixed_precision == "auto":
                actions["rsl_rl, mixed"] = rsl_rl_update(num_envs, minibatches, True)
            seconds = measure_in_turn(actions, rounds)
            print(f"\n{num_envs} x {HORIZON} samples, {minibatches} mini-batches, mixed_precision {mixed_precision}")
            for name, value in seconds.items():
                one_policy = seconds["dual, low rows only"]
                print(
                    f"  {name:20s} {value:7.3f} s  {1e6 * value / samples:6.1f} µs/sample  "
                    f"{value / one_policy:5.2f} of one policy  {value / seconds['rsl_rl']:5.2f} of rsl_rl"
                )


if __name__ == "__main__":
    main()
