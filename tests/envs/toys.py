"""A task that uses everything in the contract, and simulators that show what they were told."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.randomization import Randomization, RandomizationConfig
from dualfid_robot.envs.task import ActionMapping, Start, State, Task, TaskConfig, Term
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator

DT = 1 / 60
EPISODE = 12
COMMAND_STEPS = 5  # a command holds for so many steps
START_CONTROL = -0.2


class Chase(Task):
    """Cartpole that chases a command, which changes in the episode; each full episode raises the level by one.

    Episodes begin alike on a level, so that the random numbers are those of `advance` alone.
    """

    memory: Mapping[str, int] = {"command": 2, "level": 1}

    def __init__(self, config: TaskConfig, robot: RobotModel, control_dt: float, device: torch.device | str) -> None:
        super().__init__(config, robot, control_dt, device)
        self.terms = (
            Term("joints", 2, scale=2.0, history=3),
            Term("command", 2),
            Term("control", 1, history=2),
            Term("action", 1),
        )
        self.privileged_terms = (Term("speeds", 2, scale=0.5, history=2), Term("level", 1), Term("friction", 1))
        self.action_mapping = ActionMapping("force", scale=0.3, cumulative=True)

    def sample_initial_state(self, n: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        raise AssertionError("begin_episode replaces it")

    def begin_episode(self, last: State, generator: torch.Generator) -> Start:
        passed = last.step[:, None] >= EPISODE
        level = torch.where(passed, last.memory["level"] + 1.0, last.memory["level"])
        qpos = torch.cat((0.1 * level, torch.full_like(level, 0.1)), 1)
        return Start(qpos, torch.zeros_like(qpos), {"command": level * torch.tensor([1.0, -1.0]), "level": level})

    def initial_control(self, qpos: Tensor) -> Tensor:
        return torch.full((len(qpos), 1), START_CONTROL)

    def observe(self, state: State) -> dict[str, Tensor]:
        return {
            "joints": state.qpos,
            "command": state.memory["command"],
            "control": state.control,
            "action": state.action,
            "speeds": state.qvel,
            "level": state.memory["level"],
            "friction": state.parameters.get("friction", torch.ones(len(state.qpos))),
        }

    def terminated(self, state: State, observed: Mapping[str, Tensor]) -> Tensor:
        return state.qpos[:, 0].abs() > 0.5

    def reward(
        self, previous_qpos: Tensor, state: State, observed: Mapping[str, Tensor], terminated: Tensor
    ) -> dict[str, Tensor]:
        half = 0.5 * observed["command"][:, 0]
        return {"half": half, "other_half": half}

    def advance(self, state: State, observed: dict[str, Tensor], generator: torch.Generator) -> None:
        drawn = torch.rand(len(state.step), 2, generator=generator)
        new = torch.where((state.step % COMMAND_STEPS == 0)[:, None], drawn, state.memory["command"])
        state.memory["command"].copy_(new)
        observed["command"] = state.memory["command"]

    def measure(self, state: State, observed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"error": (state.qpos[:, 0] - observed["command"][:, 0]).abs()}


class Recorder(MujocoSimulator):
    """Keeps what it was told."""

    def __init__(self, *args: object) -> None:
        super().__init__(*args)  # type: ignore[arg-type]
        self.controls: list[Tensor] = []
        self.states: list[tuple[Tensor, Tensor]] = []
        self.parameters: list[tuple[Tensor, dict[str, Tensor]]] = []

    def start_step(self, ctrl: Tensor, n: int) -> None:
        self.controls.append(ctrl.clone())
        super().start_step(ctrl, n)

    def set_state(self, ids: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        if hasattr(self, "states"):
            self.states.append((ids.clone(), qvel.clone()))
        super().set_state(ids, qpos, qvel)

    def set_parameters(self, ids: Tensor, parameters: Mapping[str, Tensor]) -> None:
        self.parameters.append((ids.clone(), {name: values.clone() for name, values in parameters.items()}))
        super().set_parameters(ids, parameters)


class MaskingRecorder(Recorder):
    RESETS_BY_MASK = True


def make_pool(
    robot: RobotModel,
    num_envs: int,
    engine: type[MujocoSimulator] = MujocoSimulator,
    task: type[Task] = Chase,
    randomization: RandomizationConfig | None = None,
    seed: int = 0,
    episode_length: int = EPISODE,
    clip: float = 5.0,
) -> EnvironmentPool:
    config = task.Config(num_envs, episode_length, clipObservations=clip)
    toy = task(config, robot, DT, "cpu")
    drawn = None if randomization is None else Randomization(randomization, toy, engine, num_envs)
    simulator = engine(engine.Config(substeps=2, threads=1), robot, num_envs, DT, toy.contact_bodies)
    return EnvironmentPool(simulator, toy, seed, randomization=drawn)
