"""The contract holds in every engine, and a difference that somebody puts in is found and named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco.simulator import MujocoSimulator
from dualfid_robot.simulators.registry import engine_config
from dualfid_robot.transfer import contract as module
from dualfid_robot.transfer.contract import Contract, check_contract


def check(experiment: Experiment, name: str) -> Contract:
    return check_contract(experiment, name, simulator_settings(name, experiment.settings["task"]))


@pytest.mark.parametrize("engine", ["mujoco", "mujoco_reduced", "pybullet", "physx"])
@pytest.mark.parametrize("task", ["Cartpole", "Ant"])
def test_holds(task: str, engine: str, experiment_of: Callable[..., Experiment]) -> None:
    found = check(experiment_of(task), engine)
    assert found.problems == ()
    assert found.position < 1e-5 and found.velocity < 1e-3 and found.observation < 1e-3
    assert found.contact_terms == (("foot_wrench",) if task == "Ant" else ())
    assert found.line().startswith(f"{engine}: contract holds: ")


@pytest.mark.parametrize("task", ["Quadcopter", "BallBalance", "FrankaCabinet", "Anymal", "AnymalTerrain", "Humanoid"])
def test_holds_for_every_task(task: str, experiment_of: Callable[..., Experiment]) -> None:
    assert check(experiment_of(task), "mujoco_reduced").problems == ()


class Swapped(MujocoSimulator):
    """Two joints in each other's place."""

    def finish_step(self) -> None:
        super().finish_step()
        self.qpos[:, [8, 9]] = self.qpos[:, [9, 8]]
        self.qvel[:, [7, 8]] = self.qvel[:, [8, 7]]


class Shifted(MujocoSimulator):
    """A joint whose zero is elsewhere."""

    def finish_step(self) -> None:
        super().finish_step()
        self.qpos[:, 10] += 0.01


class OtherActuators(MujocoSimulator):
    """Two actuators in each other's place."""

    def start_step(self, ctrl: Tensor, n: int) -> None:
        order = [1, 0, *range(2, ctrl.shape[1])]
        super().start_step(ctrl[:, order].contiguous(), n)


class Reversed(MujocoSimulator):
    """An actuator that pushes the wrong way."""

    def start_step(self, ctrl: Tensor, n: int) -> None:
        ctrl = ctrl.clone()
        ctrl[:, 3] *= -1
        super().start_step(ctrl, n)


class Slow(MujocoSimulator):
    """Half as much time in a step."""

    def __init__(self, config: Any, robot: RobotModel, num_worlds: int, control_dt: float, *others: Any) -> None:
        super().__init__(config, robot, num_worlds, 0.5 * control_dt, *others)


class BodyFrame(MujocoSimulator):
    """The root's linear velocity in another frame: its axes are permuted."""

    def finish_step(self) -> None:
        super().finish_step()
        self.qvel[:, :3] = self.qvel[:, [1, 2, 0]]


def maker_of(engine: type[MujocoSimulator]) -> Callable[..., MujocoSimulator]:
    """`make_simulator` for an engine that no file of the package holds."""

    def make(settings: Mapping[str, Any], *others: Any) -> MujocoSimulator:
        return engine(engine_config(settings, "mujoco"), *others)

    return make


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (Swapped, "position of joint "),
        (Shifted, "default position of joint ankle_2 is read back with a difference of 0.01"),
        (OtherActuators, "acts with cosine"),
        (Reversed, "acts with cosine -1.00 to itself in MuJoCo"),
        (Slow, "control period is 8.4"),
        (BodyFrame, "velocity of joint "),
    ],
)
def test_finds_a_difference(
    engine: type[MujocoSimulator],
    expected: str,
    experiment_of: Callable[..., Experiment],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "make_simulator", maker_of(engine))
    found = check(experiment_of("Ant"), "mujoco")
    assert any(expected in problem for problem in found.problems), found.problems
    assert found.line().startswith("mujoco: contract broken: ")


def test_the_swapped_actuators_are_named(
    experiment_of: Callable[..., Experiment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "make_simulator", maker_of(OtherActuators))
    experiment = experiment_of("Ant")
    first, second = experiment.robot.actuator_names[:2]
    problems = [text for text in check(experiment, "mujoco").problems if text.startswith("actuator")]
    assert len(problems) == 2
    assert problems[0].startswith(f"actuator {first} ") and problems[0].endswith(f"and like {second}")


def test_an_engine_that_does_not_take_the_task_says_why(experiment_of: Callable[..., Experiment]) -> None:
    with pytest.raises(ConfigError, match=r"^simulators=pybullet: quadcopter.xml: actuator thrust_0: "):
        check(experiment_of("Quadcopter"), "pybullet")


def test_the_line_says_what_is_delayed(experiment_of: Callable[..., Experiment]) -> None:
    found = check(experiment_of("Cartpole"), "mujoco")
    delayed = dataclasses.replace(found, silent=("cart_motor",))
    assert "1 actuator in order, 1 of them delayed" in delayed.line()
    assert torch.isfinite(torch.tensor(found.gain)).all()
