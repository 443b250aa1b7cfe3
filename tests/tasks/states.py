"""Hand-made states for the tests of tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from dualfid_robot.envs.reward import add_up
from dualfid_robot.envs.task import State


def hand_made_state(
    qpos: Sequence[float],
    qvel: Sequence[float],
    action: Sequence[float],
    wrench: Sequence[Sequence[float]] = (),
    control: Sequence[float] | None = None,
    step: int = 1,
    memory: Mapping[str, Sequence[float]] | None = None,
) -> State:
    """The state of a single world; its control is its action if nothing else is said."""
    return State(
        _row(qpos),
        _row(qvel),
        torch.tensor(wrench, dtype=torch.float32).reshape(1, len(wrench), 6),
        _row(action),
        _row(action if control is None else control),
        torch.tensor([step], dtype=torch.int32),
        {name: _row(values) for name, values in (memory or {}).items()},
    )


def paid(terms: Mapping[str, torch.Tensor]) -> float:
    """The reward of a single world, from its terms."""
    return float(add_up(terms.values()))


def _row(values: Sequence[float]) -> torch.Tensor:
    return torch.tensor([list(values)], dtype=torch.float32)
