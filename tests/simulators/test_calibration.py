"""The fit finds what was hidden, and its measure is zero for the reference itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engines_under_test import Make

from dualfid_robot.conformance.cases import ENGINES
from dualfid_robot.conformance.robots import DT
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators import calibration
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.calibration import (
    HORIZONS,
    Windows,
    calibrate,
    collect,
    fit,
    measured_feet,
    residual,
)


def test_compass_search_finds_a_minimum() -> None:
    def error(x: dict[str, float]) -> float:
        return (x["a"] - 0.3) ** 2 + (torch.tensor(x["b"]).log10().item() - 2.5) ** 2 + 1.0

    steps = list(fit(error, {"a": 5.0, "b": 1.0}, {"a": (-1.0, 1.0), "b": (1.0, 1e4)}, finest=1e-3))
    values, least = steps[-1]
    assert steps[0][0] == {"a": 1.0, "b": 1.0}  # moved to its bounds
    assert [e for _, e in steps] == sorted((e for _, e in steps), reverse=True)
    assert values["a"] == pytest.approx(0.3, abs=0.01)
    assert values["b"] == pytest.approx(10**2.5, rel=0.05)
    assert least == pytest.approx(1.0, abs=1e-3)


@pytest.mark.parametrize(
    ("bound", "bounds", "in_force", "chosen", "better"),
    [
        (1.0, (0.1, 10.0), {"substeps": 2, "friction": 1.0}, 2, True),  # the nearest that the bound allows
        (0.5, (0.1, 10.0), {"substeps": 1, "friction": 1.0}, 1, True),
        (2.0, (0.1, 10.0), {"substeps": 4, "friction": 1.0}, 4, True),  # what is in force is a candidate itself
        (0.1, (0.1, 10.0), {"substeps": 2, "friction": 1.0}, 2, True),  # all cost too much
        (1.0, (0.1, 2.0), {"substeps": 2, "friction": 3.0}, 2, False),  # the best is beyond the bounds
        (0.5, (0.1, 2.0), {"substeps": 2, "friction": 3.0}, 1, False),
        (0.5, (0.1, 10.0), {"substeps": 2, "friction": 2.9}, 1, False),  # worse than what is in force, if cheaper
    ],
)
def test_a_fit_is_compared_with_what_is_in_force_at_its_own_substeps(
    bound: float,
    bounds: tuple[float, float],
    in_force: dict[str, float],
    chosen: int,
    better: bool,
    monkeypatch: pytest.MonkeyPatch,
    ant: RobotModel,
) -> None:
    """A step costs 0.4 for each substep; friction 3 is right, and more substeps are nearer."""

    def error(windows: object, robot: object, engine: dict[str, float], dt: float) -> dict[str, float]:
        return {"all": abs(engine["friction"] - 3.0) + 1.0 / engine["substeps"]}

    monkeypatch.setattr(calibration, "residual", error)
    monkeypatch.setattr(calibration, "relative_cost", lambda w, r, reference, engine, dt: 0.4 * engine["substeps"])
    nothing = Windows(*(torch.zeros(0) for _ in range(4)))
    choices = {"substeps": [1, 2]}
    found = calibrate(nothing, ant, {}, in_force, DT, {"friction": bounds}, choices, bound, in_force=in_force)
    assert found.values["substeps"] == chosen
    assert found.before["all"] == pytest.approx(abs(in_force["friction"] - 3.0) + 1.0 / in_force["substeps"])
    assert found.after["all"] == pytest.approx(abs(found.values["friction"] - 3.0) + 1.0 / chosen)
    assert found.is_better == better and (not better or found.values["friction"] == pytest.approx(3.0, rel=0.1))


@pytest.fixture(scope="module")
def windows(ant: RobotModel) -> Windows:
    return collect(ant, ENGINES["mujoco"], DT, num_worlds=48, periods=60, max_windows=64)


def test_bodies_without_geoms_are_no_obstacle(pybullet: None, robot_of: Callable[..., RobotModel]) -> None:
    """Neither as a foot, whose forces are those of the body that it is welded to, nor as a camera's mount."""
    robot = robot_of(
        '<geom type="plane" size="0 0 1"/><body name="base" pos="0 0 .2"><freejoint/><geom size=".1" mass="1"/>'
        '<body name="sole"/><body name="camera" pos="0 0 .1"/><body name="arm" pos="0 0 .1"><joint name="j"/>'
        '<geom type="capsule" size=".02 .1" pos="0 0 .1" mass=".2"/></body></body>',
        '<actuator><motor joint="j" ctrlrange="-1 1"/></actuator>',
        ("sole",),
    )
    assert measured_feet(robot) == ("base",)
    found = collect(robot, ENGINES["mujoco"], DT, num_worlds=8, periods=60, max_windows=8)
    assert len(found) and found.wrench.shape[2:] == (1, 6)
    assert 0.0 < residual(found, robot, ENGINES["pybullet"], DT)["foot force/10"] < 1.0


def test_windows_are_pieces_of_the_references_motion(windows: Windows, ant: RobotModel) -> None:
    assert len(windows) == 64
    assert windows.qpos.shape == (64, max(HORIZONS) + 1, 15)
    assert windows.ctrl.shape == (64, max(HORIZONS), 8)
    errors = residual(windows, ant, ENGINES["mujoco"], DT)
    assert errors["root position/1"] < 1e-3
    assert errors["all"] < 0.05  # not zero: a window starts without the solver's warm start
    assert (windows.wrench[..., 2] > 0).any(1).any(1).float().mean() > 0.3  # feet are on the ground in many


def test_a_coarser_engine_has_a_larger_residual(windows: Windows, ant: RobotModel) -> None:
    two, one = (residual(windows, ant, ENGINES["mujoco_reduced"] | {"substeps": n}, DT)["all"] for n in (2, 1))
    assert 0.05 < two < one < 0.6


def followed_by(simulator: Simulator, windows: Windows) -> Windows:
    """The same first states and controls, and what another engine makes of them."""
    n = len(windows)
    simulator.set_state(torch.arange(n), windows.qpos[:, 0], windows.qvel[:, 0])
    qpos, qvel, wrench = [simulator.qpos.clone()], [simulator.qvel.clone()], []
    for ctrl in windows.ctrl.unbind(1):
        simulator.step(ctrl, n)
        qpos.append(simulator.qpos.clone())
        qvel.append(simulator.qvel.clone())
        wrench.append(simulator.contact_wrench.clone())
    return Windows(torch.stack(qpos, 1), torch.stack(qvel, 1), windows.ctrl, torch.stack(wrench, 1))


@pytest.mark.slow
def test_hidden_settings_are_found_again(pybullet: None, make: Make, windows: Windows, ant: RobotModel) -> None:
    few = Windows(*(getattr(windows, field.name)[:24] for field in dataclasses.fields(windows)))
    hidden = make("pybullet", ant, len(few), bodies=ant.feet, joint_damping=2.0, friction=0.5)
    seen = followed_by(hidden, few)
    one_process = ENGINES["pybullet"] | {"workers": 1}
    *_, (values, error) = fit(
        lambda trial: residual(seen, ant, one_process | trial, DT)["all"],
        {"joint_damping": 1.0, "friction": 1.0},
        {"joint_damping": (0.3, 3.0), "friction": (0.2, 3.0)},
    )
    assert values["joint_damping"] == pytest.approx(2.0, rel=0.1)
    assert values["friction"] == pytest.approx(0.5, rel=0.15)
    assert error < 0.05


def test_the_fitted_twin_of_the_ant_is_closer_than_the_naive_one(
    pybullet: None, windows: Windows, ant: RobotModel
) -> None:
    from omegaconf import OmegaConf

    from dualfid_robot.config.machine import CONFIG_DIR

    path: Path = CONFIG_DIR / "calibration" / "Ant.yaml"
    fitted = OmegaConf.to_container(OmegaConf.load(path))
    assert isinstance(fitted, dict)
    naive = {"substeps": 1, "child_armature": 0.0, "parent_armature": 0.0, "contact_stiffness": 1e5}
    with_fit = residual(windows, ant, ENGINES["pybullet"] | fitted["pybullet"], DT)["all"]
    without = residual(windows, ant, ENGINES["pybullet"] | naive, DT)["all"]
    assert with_fit < 0.4
    assert without > 1.5 * with_fit
