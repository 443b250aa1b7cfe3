"""The low simulator where the user names none."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config import default_low as module
from dualfid_robot.config.default_low import default_low
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.pybullet.simulator import PybulletSimulator

Compose = Callable[..., DictConfig]
Run = Callable[..., subprocess.CompletedProcess[str]]

UNCHOSEN = ("task=Quadcopter", "++task.low=''")  # a task that PyBullet refuses, and that names no low simulator itself


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where PyBullet is installed; nothing here steps it."""
    monkeypatch.setattr(module, "pybullet_is_installed", lambda: True)


def test_pybullet_where_it_takes_the_robot(installed: None, compose_config: Compose) -> None:
    assert default_low(compose_config("task=Ant").task, UserFolder()) == ("pybullet", "")


def test_reduced_mujoco_where_pybullet_refuses_an_element(installed: None, compose_config: Compose) -> None:
    name, notice = default_low(compose_config(*UNCHOSEN).task, UserFolder())
    assert name == "mujoco_reduced"
    assert "actuator thrust_0: a transmission to a site" in notice
    assert notice.endswith("simulator/low=mujoco_reduced is used instead")


def test_reduced_mujoco_where_pybullet_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, compose_config: Compose
) -> None:
    monkeypatch.setattr(module, "pybullet_is_installed", lambda: False)
    name, notice = default_low(compose_config("task=Ant").task, UserFolder())
    assert name == "mujoco_reduced"
    assert notice.startswith("pybullet is not installed")


def test_contacts_of_bodies_that_are_no_feet_are_refused(installed: None, compose_config: Compose) -> None:
    task = compose_config("task=Ant", "task.asset.feet=[foot_1,foot_2]").task
    name, notice = default_low(task, UserFolder())
    assert name == "mujoco_reduced"
    assert "contact_bodies=['foot_3', 'foot_4']" in notice


def test_a_task_names_its_own(installed: None, compose_config: Compose) -> None:
    task = compose_config("task=Ant").task
    OmegaConf.update(task, "low", "mujoco", force_add=True)
    assert default_low(task, UserFolder()) == ("mujoco", "")
    task.low = "bullet"
    with pytest.raises(ConfigError, match=r"^task\.low=bullet: allowed are \['mujoco', .*'pybullet'"):
        default_low(task, UserFolder())


def test_what_pybullet_refuses_is_named_without_a_simulator(ant: object) -> None:
    with pytest.raises(ConfigError, match="torso"):
        PybulletSimulator.check_robot(ant, ("torso",))  # type: ignore[arg-type]


def test_settings_of_the_simulator_that_the_task_names_can_be_given(compose_config: Compose) -> None:
    cfg = compose_config("task=BallBalance", "simulator.low.iterations=7")
    assert (cfg.task.low, cfg.simulator.low.engine, cfg.simulator.low.iterations) == ("mujoco_reduced", "mujoco", 7)
    assert compose_config("task=BallBalance", "simulator/low=pybullet").simulator.low.engine == "pybullet"


FEW = ("num_envs=16", "max_iterations=1", "simulator.high.threads=1", "train.params.config.minibatch_size=32")


@pytest.mark.slow
def test_train_takes_it_and_says_so(run_script: Run) -> None:
    pytest.importorskip("pybullet")
    result = run_script("train.py", *UNCHOSEN, *FEW)
    assert result.returncode == 0, result.stderr
    assert "a transmission to a site" in result.stdout + result.stderr
    assert "E_low: mujoco" in result.stdout + result.stderr


@pytest.mark.slow
def test_pybullet_that_the_user_chose_is_refused(run_script: Run) -> None:
    pytest.importorskip("pybullet")
    result = run_script("train.py", *UNCHOSEN, *FEW, "simulator/low=pybullet")
    assert result.returncode == 2
    assert result.stderr.startswith("error: quadcopter.xml: actuator thrust_0: a transmission to a site")
    assert result.stderr.count("\n") == 1
