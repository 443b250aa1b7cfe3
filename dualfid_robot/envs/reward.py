"""Rewards as named terms: a task's reward is the sum of a dictionary's tensors, in the dictionary's order.

A task writes the dictionary alone. Two helpers serve rewards that are more than a sum. With them the terms still add up
to what the policy is paid: `not_negative` and `replaced_where`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import reduce

import torch
from torch import Tensor

from dualfid_robot.errors import ConfigError


def add_up(terms: Iterable[Tensor]) -> Tensor:
    """(n,) sum of terms (n,), from the first to the last, so that its digits depend on nothing else."""
    return reduce(torch.add, terms)


def rows_of(terms: Mapping[str, Tensor], n: int, owner: str) -> Tensor:
    """The terms below one another, (k, n).

    Args:
        terms: of n worlds.
        n: how many.
        owner: the task, for errors.

    Raises:
        ConfigError: they are no dictionary of tensors (n,).
    """
    if not isinstance(terms, Mapping) or not terms:
        raise ConfigError(
            f"{owner}: reward gives {type(terms).__name__}; a dictionary of terms is expected, one tensor (n,) each"
        )
    for name, values in terms.items():
        if values.shape != (n,):
            shape = tuple(values.shape)
            raise ConfigError(f"{owner}: {name} of reward has shape {shape} for {n} worlds; ({n},) is expected")
    return torch.stack(list(terms.values()))


def not_negative(terms: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The terms and a last one, `clipped`: what lifts a negative sum to 0 exactly."""
    return {**terms, "clipped": (-add_up(terms.values())).clamp(min=0.0)}


def replaced_where(mask: Tensor, terms: Mapping[str, Tensor], name: str, value: float) -> dict[str, Tensor]:
    """The terms and a last one, `name`, which is all of the reward where a mask (n,) holds.

    There it is `value` and the other terms are 0. Elsewhere it is 0.
    """
    kept = {term: values.masked_fill(mask, 0.0) for term, values in terms.items()}
    return {**kept, name: torch.where(mask, value, 0.0)}


class StepMeans:
    """Means over environments and steps of named quantities. Their sums stay on the device until they are read."""

    def __init__(self, owner: str) -> None:
        """Begin with nothing.

        Args:
            owner: who names the quantities, for errors.
        """
        self._owner = owner
        self._names: list[str] = []
        self._sums: Tensor | None = None

    def add(self, names: Iterable[str], values: Tensor) -> None:
        """Add a step.

        Args:
            names: k of them, the same in every step.
            values: (k, n).

        Raises:
            ConfigError: the names differ from those of the step before, or one holds a "/".
        """
        names = list(names)
        if names != self._names:
            if self._names:
                raise ConfigError(f"{self._owner} gives {names}, and before {self._names}; the names stay the same")
            if wrong := [name for name in names if "/" in name]:
                raise ConfigError(f"{self._owner} gives {wrong}; a name holds no /")
            self._names = names
        sums = values.sum(1, dtype=torch.float64)
        self._sums = sums if self._sums is None else self._sums + sums  # not in place: some may be of inference mode

    def take(self, steps: int) -> dict[str, float]:
        """The means over `steps` environment steps, all that were added since the last call. Waits for the device."""
        if self._sums is None:
            return {}
        means = (self._sums / steps).tolist()
        self._sums = None
        return dict(zip(self._names, means, strict=True))
