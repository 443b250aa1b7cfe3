"""Cartpole: balance a pole on a cart. Definition and figures: Isaac Gym's Cartpole task."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.reward import replaced_where
from dualfid_robot.envs.task import ActionMapping, State, Task, TaskConfig, Term, uniform

FAILURE_REWARD = -2.0


@dataclass(frozen=True)
class CartpoleConfig(TaskConfig):
    """Isaac Gym's settings of the task.

    Attributes:
        resetDist: cart position, m, beyond which the episode ends.
    """

    resetDist: float = 3.0


class Cartpole(Task):
    Config = CartpoleConfig
    config: CartpoleConfig

    def __init__(
        self, config: CartpoleConfig, robot: RobotModel, control_dt: float, device: torch.device | str
    ) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("cart_position", 1, unit="m"),
            Term("cart_velocity", 1, unit="m/s"),
            Term("pole_angle", 1, unit="rad"),
            Term("pole_velocity", 1, unit="rad/s"),
        )
        self.action_mapping = ActionMapping("force", clip=config.clipActions)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        return uniform(n, 2, 0.1, generator), uniform(n, 2, 0.25, generator)

    def observe(self, state: State) -> dict[str, Tensor]:
        return {
            "cart_position": state.qpos[:, 0],
            "cart_velocity": state.qvel[:, 0],
            "pole_angle": state.qpos[:, 1],
            "pole_velocity": state.qvel[:, 1],
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        tipped = observed["pole_angle"].abs() > torch.pi / 2
        return tipped | (observed["cart_position"].abs() > self.config.resetDist)

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        terms = {
            "alive": torch.ones_like(observed["pole_angle"]),
            "pole_angle": -observed["pole_angle"].square(),
            "cart_velocity": -0.01 * observed["cart_velocity"].abs(),
            "pole_velocity": -0.005 * observed["pole_velocity"].abs(),
        }
        return replaced_where(terminated, terms, "failure", FAILURE_REWARD)
