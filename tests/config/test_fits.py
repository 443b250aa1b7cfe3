"""Fits of low simulators: which one is in force, what wins over it, and which one calibrate.py writes."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.calibrate import launch
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.fits import fit_in_force
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.calibration import Fit

SHIPPED = OmegaConf.load(CONFIG_DIR / "calibration" / "Ant.yaml").pybullet


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    """A user's folder of settings."""
    (tmp_path / "mine" / "cfg" / "calibration").mkdir(parents=True)
    return tmp_path / "mine" / "cfg"


def write_fit(mine: Path, task: str, text: str) -> Path:
    path = mine / "calibration" / f"{task}.yaml"
    path.write_text(text)
    return path


def composed(*overrides: str, mine: str | Path = "", config_name: str = "config") -> DictConfig:
    with hydra_apart():
        return compose_config(["simulator/low=pybullet", *overrides], config_name, str(mine))


def test_a_fit_is_in_force_without_being_asked_for(mine: Path) -> None:
    assert composed("task=Ant").simulator.low.pybullet.friction == SHIPPED.friction
    path = write_fit(mine, "Cartpole", "pybullet: {joint_damping: 0.7, substeps: 3}\n")
    cfg = composed("task=Cartpole", mine=mine)
    engine = OmegaConf.to_container(cfg.simulator.low.pybullet, resolve=True)
    assert isinstance(engine, dict) and (engine["joint_damping"], engine["substeps"]) == (0.7, 3)
    assert fit_in_force("Cartpole", {str(key): value for key, value in engine.items()}, UserFolder(mine)) == (
        f"pybullet: the fit of {path}"
    )
    with hydra_apart():
        evaluated = compose_config(["task=Cartpole", "simulator=pybullet"], "evaluate", str(mine))
    assert evaluated.simulator.joint_damping == 0.7


def test_the_users_fit_wins_over_the_packages_and_the_command_line_over_both(mine: Path) -> None:
    path = write_fit(mine, "Ant", "pybullet: {friction: 0.5, joint_damping: 0.9}\n")
    low = composed("task=Ant", mine=mine).simulator.low.pybullet
    assert (low.friction, low.joint_damping, low.substeps) == (0.5, 0.9, 2)  # and no mixture of two fits
    low = composed("task=Ant", "+task.simulators.pybullet.friction=0.6", mine=mine).simulator.low.pybullet
    assert (low.friction, low.joint_damping) == (0.6, 0.9)
    low = composed("task=Ant", "simulator.low.pybullet.friction=0.7", mine=mine).simulator.low.pybullet
    settings = {str(key): value for key, value in low.items()}
    assert fit_in_force("Ant", settings, UserFolder(mine)) == f"pybullet: the fit of {path}, but for friction=0.7"
    uncalibrated = composed("task=Ant", "simulator/low=pybullet_uncalibrated", mine=mine).simulator.low
    assert uncalibrated.pybullet_uncalibrated.friction == 1.0


def test_a_fit_wins_over_the_tasks_own_values(mine: Path) -> None:
    assert composed("task=Anymal", mine=mine).simulator.low.pybullet.substeps == 4
    write_fit(mine, "Anymal", "pybullet: {substeps: 2}\n")
    cfg = composed("task=Anymal", mine=mine)
    assert (cfg.simulator.low.pybullet.substeps, cfg.simulator.low.pybullet.contact_stiffness) == (2, 30000.0)
    assert cfg.simulator.high.substeps == 4


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1, 2]\n", "calibration/Cartpole.yaml: settings of engines are expected"),
        ("pybullet: 3\n", "calibration/Cartpole.yaml: settings of engines are expected"),
        *((text, "settings of engines are expected") for text in ("3", "[", "a: b: c", "a: ${", "\x00", "- 1")),
        ("pybullet: {frictoin: 1}\n", "task.simulators.pybullet.frictoin: no such setting; did you mean"),
    ],
)
def test_what_is_no_fit_is_refused(text: str, message: str, mine: Path) -> None:
    write_fit(mine, "Cartpole", text)
    with pytest.raises(ConfigError) as refused:
        composed("task=Cartpole", mine=mine)
    assert message in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("low", ["pybullet", "default"])
@pytest.mark.parametrize(("after", "written"), [(0.2, True), (0.3, False), (0.4, False)])
def test_only_a_better_fit_is_written_and_the_next_run_has_it(
    after: float,
    written: bool,
    low: str,
    mine: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """By default too, where PyBullet is one of two engines and the other has nothing to fit."""
    cfg = composed("task=Cartpole", f"simulator/low={low}", mine=mine, config_name="calibrate")
    asked = {}

    def calibrated(*arguments: object, **options: object) -> Fit:
        asked.update(options)
        return Fit({"joint_damping": 0.75}, {"all": 0.3}, {"all": after}, 0.4)

    monkeypatch.setattr(launch, "collect", lambda *arguments, **options: [0])
    monkeypatch.setattr(launch, "calibrate", calibrated)
    launch.launch_calibration(cfg)
    last = capsys.readouterr().out.splitlines()[-1]
    path = mine / "calibration" / "Cartpole.yaml"
    expected = {
        True: f"written to {path}; train.py applies it to task=Cartpole",
        False: f"not written: the error {after:.4f} is no smaller than 0.3000, that of the settings in force",
    }
    assert last == expected[written] and path.exists() == written
    assert asked["in_force"]["name"] == "pybullet" and asked["in_force"]["joint_damping"] == 1.0
    assert composed("task=Cartpole", mine=mine).simulator.low.pybullet.joint_damping == (0.75 if written else 1.0)


def test_an_engine_that_reads_no_fit_is_not_fitted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "collect", lambda *arguments, **options: [0])
    cfg = composed("task=Cartpole", "simulator/low=pybullet_uncalibrated", config_name="calibrate")
    with pytest.raises(ConfigError, match=r"^simulator/low=pybullet_uncalibrated: nothing to fit; fit has \['pybullet"):
        launch.launch_calibration(cfg)


def test_without_a_search_it_only_measures(
    mine: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "collect", lambda *arguments, **options: [0])
    monkeypatch.setattr(launch, "relative_cost", lambda *arguments: 0.25)
    monkeypatch.setattr(launch, "residual", lambda *arguments: {"all": 0.125})
    launch.launch_calibration(composed("task=Cartpole", "search=false", mine=mine, config_name="calibrate"))
    lines = capsys.readouterr().out.splitlines()
    assert lines[-3:] == ["| relative error | as configured |", "|---|---|", "| all | 0.125 |"]
    assert "Cost of a step: 0.25 of the high simulator's." in lines
    assert not list((mine / "calibration").iterdir())
