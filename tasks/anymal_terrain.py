"""AnymalTerrain: follow velocity commands over slopes, stairs and blocks that get harder as the robot gets better.

Definition and figures: Isaac Gym's AnymalTerrain task (`isaacgymenvs/tasks/anymal_terrain.py`).

Deliberate differences: the scanned heights come last in the observation and are those of the nearest samples. Each
episode is judged by its own command. Isaac Gym's compares with the norm of all commands together. A robot that masters
the last level goes to a random one, as in legged_gym. Each kind of terrain has one column, drawn in Isaac Gym's
proportions. Noise, pushes and friction are left to domain randomisation. Unlike in Anymal, a heading is commanded, and
thighs may touch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from dualfid_robot.command import Command
from dualfid_robot.envs import RobotModel
from dualfid_robot.envs.height_field import HeightField
from dualfid_robot.envs.rotations import wrap_angle, yaw
from dualfid_robot.envs.task import Start, State, Term, uniform
from dualfid_robot.errors import ConfigError
from dualfid_robot.tasks.anymal import CONTACT_THRESHOLD, Anymal, AnymalConfig, CommandRanges

# The layout of assets/anymal_terrain.png: square cells, levels of difficulty along x, kinds along y.
LEVELS, KINDS, CELL = 10, 5, 8.0  # CELL in m
SCAN_X = (-0.8, -0.7, -0.6, -0.5, -0.4, -0.3, -0.2, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)  # m from the base
SCAN_Y = (-0.5, -0.4, -0.3, -0.2, -0.1, 0.1, 0.2, 0.3, 0.4, 0.5)
NOMINAL_HEIGHT = 0.5  # m of the base above the ground, at which the scan is zero
HEADING_GAIN = 0.5  # 1/s: turning rate per error of the heading
LEAST_COMMAND = 0.25  # m/s; a slower command is none
AIR_TIME = 0.5  # s; steps that last longer are rewarded
WALKED_SHARE = 0.25  # of the commanded way; who walks less goes down a level


@dataclass(frozen=True)
class TerrainConfig:
    """Which cells episodes begin in.

    Attributes:
        curriculum: begin on low levels and move on by success; else on any level.
        maxInitMapLevel: greatest level of a first episode.
        terrainProportions: of smooth slopes, rough slopes, stairs up, stairs down and discrete obstacles.
    """

    curriculum: bool = True
    maxInitMapLevel: int = 0
    terrainProportions: tuple[float, ...] = (0.1, 0.1, 0.35, 0.25, 0.2)

    def __post_init__(self) -> None:
        if not 0 <= self.maxInitMapLevel < LEVELS:
            raise ConfigError(f"maxInitMapLevel={self.maxInitMapLevel}: must be from 0 to {LEVELS - 1}")
        shares = self.terrainProportions
        if len(shares) != KINDS or min(shares) < 0 or sum(shares) <= 0:
            raise ConfigError(f"terrainProportions={list(shares)}: {KINDS} shares of at least 0 are expected")


@dataclass(frozen=True)
class AnymalTerrainConfig(AnymalConfig):
    """Isaac Gym's settings of the task; rewards per second."""

    terrain: TerrainConfig = field(default_factory=TerrainConfig)
    randomCommandVelocityRanges: CommandRanges = field(
        default_factory=lambda: CommandRanges((-1.0, 1.0), (-1.0, 1.0), (-3.14, 3.14))
    )
    heightMeasurementScale: float = 5.0
    torqueRewardScale: float = -2e-5
    linearVelocityZRewardScale: float = -4.0
    angularVelocityXYRewardScale: float = -0.05
    jointAccRewardScale: float = -0.0005
    feetAirTimeRewardScale: float = 1.0
    kneeCollisionRewardScale: float = -0.25
    actionRateRewardScale: float = -0.01


class AnymalTerrain(Anymal):
    """Its memory:

    command: velocity along the base's x and y axes, m/s, and heading, rad.
    terrain_level, terrain_kind: the cell in which the episode began.
    previous_action, previous_joint_velocity: of the step before.
    air_time: seconds since each foot touched the ground.
    """

    Config = AnymalTerrainConfig
    config: AnymalTerrainConfig
    memory: ClassVar = {
        "command": 3,
        "terrain_level": 1,
        "terrain_kind": 1,
        "previous_action": 12,
        "previous_joint_velocity": 12,
        "air_time": 4,
    }

    def __init__(
        self, config: AnymalTerrainConfig, robot: RobotModel, control_dt: float, device: torch.device | str
    ) -> None:
        super().__init__(config, robot, control_dt, device)
        heights = len(SCAN_X) * len(SCAN_Y)
        self.terms = (*self.terms, Term("height_scan", heights, scale=config.heightMeasurementScale, unit="m"))
        turn = Command("heading", "rad", "command", 2, *config.randomCommandVelocityRanges.yaw)
        self.commands = (*self.commands[:2], turn)
        self.ground = HeightField(robot, "terrain", self.device)
        scan = torch.cartesian_prod(torch.tensor(SCAN_X), torch.tensor(SCAN_Y)).to(self.device)
        self.scan_x, self.scan_y = scan.unbind(1)
        self.kind_shares = torch.tensor(config.terrain.terrainProportions, device=self.device)
        self.origins = self._origins()

    def _origins(self) -> Tensor:
        """Where episodes begin (LEVELS, KINDS, 3): the middle of each cell, on the highest point within 1 m, m."""
        x = CELL * (torch.arange(LEVELS, device=self.device) - (LEVELS - 1) / 2)
        y = CELL * (torch.arange(KINDS, device=self.device) - (KINDS - 1) / 2)
        middles = torch.cartesian_prod(x, y)
        offsets = torch.cartesian_prod(*[torch.arange(-1.0, 1.01, 0.1, device=self.device)] * 2)
        near = middles[:, None] + offsets
        heights = self.ground.height(near[..., 0], near[..., 1]).amax(1, keepdim=True)
        return torch.cat((middles, heights), 1).view(LEVELS, KINDS, 3)

    def begin_episode(self, last: State, generator: torch.Generator) -> Start:
        n = len(last.qpos)
        level, kind = self._next_terrain(last, generator)
        qpos, qvel = self.sample_initial_state(n, generator)
        qpos[:, :3] += self.origins[level, kind]
        qpos[:, :2] += uniform(n, 2, 0.5, generator)
        memory = {name: torch.zeros(n, columns, device=self.device) for name, columns in self.memory.items()}
        memory["command"] = self.sample_command(n, generator)
        memory["terrain_level"], memory["terrain_kind"] = level[:, None].float(), kind[:, None].float()
        return Start(qpos, qvel, memory)

    def sample_command(self, n: int, generator: torch.Generator) -> Tensor:
        """Commands (n, 3), uniform in their ranges; slow ones are zero."""
        command = super().sample_command(n, generator)
        return command * (command[:, :2].norm(dim=1, keepdim=True) > LEAST_COMMAND)

    def _next_terrain(self, last: State, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Level and kind (n,) int64 of the next episodes.

        The kind stays. A robot that walked half a cell goes up a level. One that walked less than a share of the
        commanded distance goes down.
        """
        n, terrain = len(last.qpos), self.config.terrain
        first = last.step == 0
        level, kind = (last.memory[name].long().squeeze(1) for name in ("terrain_level", "terrain_kind"))
        draw_kind = torch.multinomial(self.kind_shares, n, replacement=True, generator=generator)
        kind = torch.where(first, draw_kind, kind)
        if not terrain.curriculum:
            return self._random_level(n, LEVELS, generator), kind
        walked = (last.qpos[:, :2] - self.origins[level, kind, :2]).norm(dim=1)
        duration = self.config.episodeLength * self.control_dt
        due = WALKED_SHARE * duration * last.memory["command"][:, :2].norm(dim=1)
        level = level + (walked > CELL / 2).long() - (walked < due).long()
        level = torch.where(level < LEVELS, level.clamp(min=0), self._random_level(n, LEVELS, generator))
        return torch.where(first, self._random_level(n, terrain.maxInitMapLevel + 1, generator), level), kind

    def _random_level(self, n: int, levels: int, generator: torch.Generator) -> Tensor:
        return torch.randint(levels, (n,), generator=generator, device=generator.device)

    def observe(self, state: State) -> dict[str, Tensor]:
        observed = super().observe(state)
        heading = yaw(observed["rotation"])
        error = wrap_angle(state.memory["command"][:, 2] - heading)
        observed["yaw_command"] = (HEADING_GAIN * error).clamp(-1.0, 1.0)
        observed["height_scan"] = self._scan(state.qpos, heading)
        return observed

    def _scan(self, qpos: Tensor, heading: Tensor) -> Tensor:
        """Depth of the ground (n, 140) below the base less its nominal height, at points around it, m."""
        cos, sin = heading.cos()[:, None], heading.sin()[:, None]
        x = qpos[:, :1] + cos * self.scan_x - sin * self.scan_y
        y = qpos[:, 1:2] + sin * self.scan_x + cos * self.scan_y
        return (qpos[:, 2:3] - NOMINAL_HEIGHT - self.ground.height(x, y)).clamp_(-1.0, 1.0)

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        """The base touches the ground."""
        return state.contact_wrench[:, 0, :3].norm(dim=1) > CONTACT_THRESHOLD

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        config, memory = self.config, state.memory
        torque = self.joint_torques(state.control, state.qpos, state.qvel)
        change_of_velocity = memory["previous_joint_velocity"] - observed["joint_velocity"]
        change_of_action = memory["previous_action"] - state.action
        thigh_contacts = (state.contact_wrench[:, 1:5, :3].norm(dim=2) > CONTACT_THRESHOLD).sum(1)
        air_time = memory["air_time"]
        landed = (air_time > 0.0) & self._foot_contact(state)
        commanded = memory["command"][:, :2].norm(dim=1) > 0.0
        own = {
            "vertical_velocity": config.linearVelocityZRewardScale * observed["linear_velocity"][:, 2].square(),
            "tilting_rate": config.angularVelocityXYRewardScale * observed["angular_velocity"][:, :2].square().sum(1),
            "torque": config.torqueRewardScale * torque.square().sum(1),
            "joint_acceleration": config.jointAccRewardScale * change_of_velocity.square().sum(1),
            "action_rate": config.actionRateRewardScale * change_of_action.square().sum(1),
            "thigh_contact": config.kneeCollisionRewardScale * thigh_contacts,
            "air_time": config.feetAirTimeRewardScale * ((air_time - AIR_TIME) * landed).sum(1) * commanded,
        }
        return self.per_step(self.tracking_rewards(observed) | own)

    def _foot_contact(self, state: State) -> Tensor:
        """Which feet press on the ground, (n, 4) bool."""
        return state.contact_wrench[:, 5:, 2] > CONTACT_THRESHOLD

    def advance(self, state: State, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        memory = state.memory
        memory["air_time"] += self.control_dt
        memory["air_time"].masked_fill_(self._foot_contact(state), 0.0)
        memory["previous_action"].copy_(state.action)
        memory["previous_joint_velocity"].copy_(observed["joint_velocity"])

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return super().measure(state, observed) | {"terrain_level": state.memory["terrain_level"][:, 0].clone()}
