"""Settings as the files of cfg/ have them, for tests that build a part by hand."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

from omegaconf import OmegaConf

from dualfid_robot.algorithms.allocation import AllocationConfig
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.config.machine import CONFIG_DIR


def ppo_config(**changes: Any) -> PPOConfig:
    """cfg/train/base.yaml with changes."""
    names = [field.name for field in dataclasses.fields(PPOConfig)]
    file = OmegaConf.load(CONFIG_DIR / "train" / "base.yaml").params.config
    return PPOConfig(**{name: file[name] for name in names} | changes)


def guards() -> dict[str, Any]:
    """cfg/allocation/guards.yaml and the rule `exponential` with its default."""
    file = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "allocation" / "guards.yaml")))
    return file | {"rule": {"name": "exponential", "alpha": 4.0}}


def allocation_config(**changes: Any) -> AllocationConfig:
    """`guards` with changes."""
    return AllocationConfig(**guards() | changes)
