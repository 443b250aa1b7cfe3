"""What research adds to the dual PPO: each option is a subclass that overrides one step of ``DualPPO.update``."""

from __future__ import annotations

import torch

from dualfid_robot.algorithms.communicator import ALONE, Communicator
from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.research.adapter_tuning import AdapterTuning
from dualfid_robot.algorithms.research.mfpg import MFPG
from dualfid_robot.policies.actor_critic import DualActorCritic


def make_algorithm(
    policy: DualActorCritic,
    config: PPOConfig,
    device: torch.device | str = "cpu",
    seed: int = 0,
    ranks: Communicator = ALONE,
) -> DualPPO:
    """The algorithm that the settings ask for.

    Args:
        policy, config, device, seed, ranks: see ``DualPPO``.

    Raises:
        ConfigError: the policy's kind of adapter does not suit the algorithm.
    """
    if config.control_variate:
        return MFPG(policy, config, device, seed, ranks)
    if config.base_learns_from == "low":
        return AdapterTuning(policy, config, device, seed, ranks)
    return DualPPO(policy, config, device, seed, ranks)
