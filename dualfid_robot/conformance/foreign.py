"""Robots of others: Gymnasium's, for a second under random controls."""

from __future__ import annotations

from pathlib import Path

import torch

from dualfid_robot.conformance.properties import Build
from dualfid_robot.conformance.robots import DT
from dualfid_robot.conformance.worlds import state, step
from dualfid_robot.robots.model import RobotModel


def gymnasium_robots() -> dict[str, RobotModel]:
    """Gymnasium's MJCF files, and which of their bodies are feet."""
    import gymnasium

    folder = Path(gymnasium.__file__).parent / "envs" / "mujoco" / "assets"
    ankles = tuple(f"unnamed_body_{i}" for i in (4, 7, 10, 13))
    feet = {
        "ant": ankles,
        "humanoid": ("right_foot", "left_foot"),
        "half_cheetah": ("bfoot", "ffoot"),
        "hopper": ("foot",),
        "walker2d": ("foot", "foot_left"),
    }
    return {name: RobotModel(folder / f"{name}.xml", bodies) for name, bodies in feet.items()}


def drive_for_a_second(build: Build, robot: RobotModel) -> None:
    """Step four of the robot for a second under random controls. They must move and stay finite.

    Raises:
        ConfigError: the engine refuses the robot.
    """
    n = 4
    simulator = build(robot, n)
    low, high = torch.from_numpy(robot.model.actuator_ctrlrange).float().unbind(1)
    generator = torch.Generator().manual_seed(0)
    before = state(simulator)
    for _ in range(round(1.0 / DT)):
        step(simulator, low + (high - low) * torch.rand(n, robot.model.nu, generator=generator))
        assert not simulator.failed.any(), "a world has failed"
        assert torch.isfinite(state(simulator)).all()
    moved = (state(simulator) - before).abs()[:, : robot.model.nq]
    assert (moved.amax(1) > 0.01).all(), "the robot does not move"
    assert float(simulator.qvel.abs().max()) < 200, "the robot explodes"
