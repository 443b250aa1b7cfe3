"""What measuring the policies' divergence and reallocating costs, beside a PPO update.

    python benchmarks/divergence.py

Target for divergence and allocation: at most 2 % of an iteration. The update alone is about
half of an iteration or less.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from ppo_update import HORIZON, NUM_ACTIONS, NUM_OBS, filled_storage
from timing import measure_in_turn, rounds_argument

from dualfid_robot.algorithms.allocation import Allocator
from dualfid_robot.algorithms.divergence import policy_divergence
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.signals import SignalFilter
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.policies.actor_critic import DualActorCritic


def main() -> None:
    rounds = rounds_argument(7)
    with hydra_apart():
        experiment = Experiment(compose_config(["task=Ant", "allocation=exponential"]))
    for num_envs, minibatches in ((1024, 4), (4096, 2)):
        config = dataclasses.replace(experiment.ppo, minibatch_size=num_envs * HORIZON // minibatches)
        algorithm = DualPPO(DualActorCritic(NUM_OBS, NUM_ACTIONS), config)
        storage = filled_storage(algorithm, num_envs, num_envs // 2)
        allocator = Allocator(num_envs, experiment.allocation)
        signal_filter = SignalFilter(num_envs, allocator.config.smoothing)
        policy, states = algorithm.policy, storage.low_observations

        def measure_and_reallocate() -> None:
            divergence = policy_divergence(policy, states)  # noqa: B023
            assert divergence is not None
            signals = signal_filter.update({"divergence": float(divergence)}, 0, 0.0)  # noqa: B023
            allocator.update(signals)  # noqa: B023

        seconds = measure_in_turn(
            {
                "update": partial(algorithm.update, storage, 0.0),
                "divergence, 4096 states, and allocation": measure_and_reallocate,
                "divergence, all states": partial(policy_divergence, policy, states, max_states=10**9),
            },
            rounds,
        )
        print(f"\n{num_envs} x {HORIZON} samples, half of them low")
        for name, value in seconds.items():
            print(f"  {name:40s} {1e3 * value:8.2f} ms  {100 * value / seconds['update']:6.2f} % of an update")


if __name__ == "__main__":
    main()
