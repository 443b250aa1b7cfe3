"""Where the actors of an environment are in its coordinates and in the rows of Isaac Gym's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.isaacgym.assets import Asset

Columns = slice | Tensor


@dataclass(frozen=True)
class Layout:
    """Layout of one environment. All are alike.

    Columns of qpos and qvel follow the order of actors, roots before joints.

    Attributes:
        roots: of each actor: the first columns of its free root in qpos and qvel. It is None where it is fixed.
        dof_qpos, dof_qvel: columns of all DOFs.
        dof_slots, body_slots: of each actor: its DOFs and bodies among the environment's.
    """

    roots: tuple[tuple[int, int] | None, ...]
    dof_qpos: Columns
    dof_qvel: Columns
    dof_slots: tuple[slice, ...]
    body_slots: tuple[slice, ...]

    @classmethod
    def of(cls, assets: Sequence[Asset]) -> Layout:
        """The layout of an environment of these assets."""
        roots: list[tuple[int, int] | None] = []
        positions: list[int] = []
        velocities: list[int] = []
        dof_slots, body_slots = [], []
        qpos = qvel = bodies = 0
        for asset in assets:
            roots.append((qpos, qvel) if asset.floating else None)
            qpos, qvel = qpos + 7 * asset.floating, qvel + 6 * asset.floating
            dofs = len(asset.dof_names)
            dof_slots.append(slice(len(positions), len(positions) + dofs))
            body_slots.append(slice(bodies, bodies + len(asset.body_names)))
            positions += range(qpos, qpos + dofs)
            velocities += range(qvel, qvel + dofs)
            qpos, qvel, bodies = qpos + dofs, qvel + dofs, bodies + len(asset.body_names)
        return cls(tuple(roots), _columns(positions), _columns(velocities), tuple(dof_slots), tuple(body_slots))

    @property
    def actors(self) -> int:
        return len(self.roots)

    @property
    def dofs(self) -> int:
        return self.dof_slots[-1].stop

    @property
    def bodies(self) -> int:
        return self.body_slots[-1].stop


def _columns(numbers: list[int]) -> Columns:
    """A slice where the numbers follow each other: it makes a view."""
    if not numbers:
        return slice(0, 0)
    if numbers == list(range(numbers[0], numbers[0] + len(numbers))):
        return slice(numbers[0], numbers[0] + len(numbers))
    return torch.tensor(numbers)
