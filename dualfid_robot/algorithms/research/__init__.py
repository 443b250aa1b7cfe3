"""What research adds to the dual PPO: each option is a subclass that overrides one step of ``DualPPO.update``."""

from __future__ import annotations

from dualfid_robot.algorithms.dual_ppo import DualPPO
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.research.adapter_tuning import AdapterTuning
from dualfid_robot.algorithms.research.mfpg import MFPG


def algorithm_class(config: PPOConfig) -> type[DualPPO]:
    """The algorithm that the settings ask for."""
    if config.control_variate:
        return MFPG
    return AdapterTuning if config.base_learns_from == "low" else DualPPO
