"""The last observations of episodes, of classes that reset what ended before they compute observations."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from dualfid_robot.isaacgym.attributes import undone
from dualfid_robot.isaacgym.random_numbers import put_back
from dualfid_robot.isaacgym.styles import Shown

Seen = list[tuple[Tensor, Shown]]


class LastObservations:
    """Stands for the method `reset_idx` of an instance, and lets it compute its observations before each reset.

    Afterwards the instance, the random numbers and the simulation are as they were. So its step takes the same course
    as without this.
    """

    def __init__(self, env: Any, read: Callable[[], Shown]) -> None:
        """Put this in the method's place.

        Args:
            env: the instance. If it has no method `compute_observations`, nothing is computed.
            read: copies of what that method found.
        """
        self._env, self._read, self._reset = env, read, env.reset_idx
        self._seen: Seen | None = None
        env.reset_idx = self

    def __call__(self, env_ids: Any, *arguments: Any, **named: Any) -> Any:
        if self._seen is not None and len(env_ids) and hasattr(self._env, "compute_observations"):
            self._seen.append((torch.as_tensor(env_ids).clone(), self._look()))
        return self._reset(env_ids, *arguments, **named)

    @contextmanager
    def looking(self) -> Iterator[Seen]:
        """Within the block, each reset adds its rows, and what all rows would have shown without it."""
        seen: Seen = []
        self._seen = seen
        try:
            yield seen
        finally:
            self._seen = None

    def _look(self) -> Shown:
        simulation = self._env.sim
        active, simulation.active = simulation.active, 0
        try:
            with undone(self._env), put_back():
                self._env.compute_observations()
                return self._read()
        finally:
            simulation.active = active


def last_shown(seen: Seen, ended: Tensor) -> Shown | None:
    """Of all resets of a step together; None where an episode ended without one.

    Args:
        seen: what `LastObservations.looking` gave.
        ended: (N,) bool.
    """
    reset = torch.zeros_like(ended)
    for ids, _ in seen:
        reset[ids] = True
    if not seen or (ended & ~reset).any():
        return None
    (_, last), *others = seen
    for ids, shown in others:
        for whole, part in zip(last, shown, strict=True):
            if whole is not None and part is not None:
                whole[ids] = part[ids]
    return last
