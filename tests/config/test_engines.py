"""The engines of both sides: what suits the task where the user names none, several for E_low, wrong choices."""

from __future__ import annotations

import math
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config import engines as module
from dualfid_robot.config.engines import default_low, resolve_shares
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.simulators.pybullet.simulator import PybulletSimulator

Compose = Callable[..., DictConfig]
Run = Callable[..., subprocess.CompletedProcess[str]]

UNCHOSEN = ("task=Quadcopter", "task.low=''")  # a task that PyBullet refuses, and that names no low simulator itself


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where PyBullet is installed; nothing here steps it."""
    monkeypatch.setattr(module, "pybullet_is_installed", lambda: True)


def test_pybullet_where_it_takes_the_robot(installed: None, compose_config: Compose) -> None:
    assert default_low(compose_config("task=Ant").task, UserFolder()) == (("mujoco_reduced", "pybullet"), "")


def test_reduced_mujoco_where_pybullet_refuses_an_element(installed: None, compose_config: Compose) -> None:
    names, notice = default_low(compose_config(*UNCHOSEN).task, UserFolder())
    assert names == ("mujoco_reduced",)
    assert "actuator thrust_0: a transmission to a site" in notice
    assert notice.endswith("simulator/low=mujoco_reduced is used alone")


def test_reduced_mujoco_where_pybullet_is_not_installed(
    monkeypatch: pytest.MonkeyPatch, compose_config: Compose
) -> None:
    monkeypatch.setattr(module, "pybullet_is_installed", lambda: False)
    names, notice = default_low(compose_config("task=Ant").task, UserFolder())
    assert names == ("mujoco_reduced",)
    assert notice.startswith("pybullet is not installed")


def test_contacts_of_bodies_that_are_no_feet_are_refused(installed: None, compose_config: Compose) -> None:
    task = compose_config("task=Ant", "task.asset.feet=[foot_1,foot_2]").task
    names, notice = default_low(task, UserFolder())
    assert names == ("mujoco_reduced",)
    assert "contact_bodies=['foot_3', 'foot_4']" in notice


def test_a_task_names_its_own(installed: None, compose_config: Compose) -> None:
    task = compose_config("task=Ant").task
    OmegaConf.update(task, "low", "mujoco", force_add=True)
    assert default_low(task, UserFolder()) == (("mujoco",), "")
    task.low = ["mujoco_reduced", "mujoco"]
    assert default_low(task, UserFolder()) == (("mujoco_reduced", "mujoco"), "")
    for wrong, message in (
        ("bullet", r"^task\.low=bullet: allowed are \['mujoco', .*'pybullet'"),
        (["mujoco", "bullet"], r"^task\.low=bullet: allowed are \['mujoco', .*'pybullet'"),
        (["mujoco", "mujoco"], r"^task\.low=\['mujoco', 'mujoco'\]: names an engine twice"),
        ([], r"^task\.low=\[\]: at least one engine is expected"),
    ):
        task.low = wrong
        with pytest.raises(ConfigError, match=message):
            default_low(task, UserFolder())


def test_what_pybullet_refuses_is_named_without_a_simulator(ant: object) -> None:
    with pytest.raises(ConfigError, match="torso"):
        PybulletSimulator.check_robot(ant, ("torso",))  # type: ignore[arg-type]


def test_settings_of_the_simulator_that_the_task_names_can_be_given(compose_config: Compose) -> None:
    cfg = compose_config("task=BallBalance", "simulator.low.mujoco_reduced.iterations=7")
    assert cfg.task.low == "mujoco_reduced" and list(cfg.simulator.low) == ["mujoco_reduced"]
    low = cfg.simulator.low.mujoco_reduced
    assert (low.name, low.engine, low.iterations, low.cone) == ("mujoco_reduced", "mujoco", 7, "pyramidal")
    assert list(compose_config("task=BallBalance", "simulator/low=pybullet").simulator.low) == ["pybullet"]


def test_settings_below_a_side_that_the_machine_chooses(compose_config: Compose) -> None:
    cfg = compose_config("task=Ant", "sim_device=cpu", "simulator.high.substeps=4", "+gap=gravity_half")
    high = cfg.simulator.high
    assert (high.name, high.substeps, high.cone, high.changes) == (
        *("mujoco", 4, "elliptic"),
        {"friction": 1.0, "gravity": 0.5, "mass": 1.0, "joint_range": 1.0},
    )
    assert compose_config("task=Ant", "sim_device=cuda:0").simulator.high.name == "mujoco_warp"
    assert compose_config("task=Ant", "sim_device=cuda:0", "simulator/high=mujoco").simulator.high.name == "mujoco"


SEVERAL = ("task=Ant", "simulator/low=[mujoco_reduced,pybullet]", "simulator.low.pybullet.workers=2")


def test_several_engines_for_low(compose_config: Compose) -> None:
    experiment = Experiment(compose_config(*SEVERAL, "simulator.low.mujoco_reduced.share=0.3"))
    found = [(engine["name"], engine["engine"], engine["share"]) for engine in experiment.low_engines]
    assert found == [("mujoco_reduced", "mujoco", 0.3), ("pybullet", "pybullet", 0.7)]
    assert experiment.settings["simulator"]["low"]["pybullet"]["workers"] == 2
    assert experiment.settings["simulator"]["low"]["pybullet"]["share"] is None
    assert experiment.high_engine["name"] in ("mujoco", "mujoco_warp")
    assert list(experiment.engines) == ["simulator.low.mujoco_reduced", "simulator.low.pybullet", "simulator.high"]


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ({"a": None}, {"a": 1.0}),
        ({"a": None, "b": None}, {"a": 0.5, "b": 0.5}),
        ({"a": 0.5, "b": None, "c": None}, {"a": 0.5, "b": 0.25, "c": 0.25}),
        ({"a": 0.1, "b": 0.2, "c": 0.7}, {"a": 0.1, "b": 0.2, "c": 0.7}),
        ({"a": None, "b": 0.0}, {"a": 1.0, "b": 0.0}),
    ],
)
def test_shares(shares: dict[str, float | None], expected: dict[str, float]) -> None:
    assert resolve_shares(shares) == expected


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"a": -0.1, "b": None}, "simulator.low.a.share=-0.1: must be a number in [0, 1]"),
        ({"a": "half"}, "simulator.low.a.share=half: must be a number in [0, 1]"),
        ({"a": float("nan"), "b": None}, "simulator.low.a.share=nan: must be a number in [0, 1]"),
        ({"a": True}, "simulator.low.a.share=True: must be a number in [0, 1]"),
        ({"a": 0.9}, "simulator.low.….share: a=0.9: the shares must add up to 1"),
        ({"a": 0.7, "b": 0.7}, "simulator.low.….share: a=0.7, b=0.7: the shares must add up to 1"),
        ({"a": 1.0, "b": None}, "simulator.low.….share: a=1.0, b=None: the shares must add up to 1"),
    ],
)
def test_wrong_shares(shares: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        resolve_shares(shares)


@pytest.mark.parametrize(
    ("high", "low", "learner", "expected"),
    [
        (1, 1, 1, 1.0),
        (0.01, 0.01, 0.01, 1.0),
        (30, 1, 3, 10.0),
        (2, 4, 1, 0.5),
        (0, 1, 1, 0.0),
        (1, 0, 0, math.inf),
        (0, 0, 0, 1.0),
    ],
)
def test_what_counts_of_a_price_is_its_ratio(
    high: float, low: float, learner: float, expected: float, compose_config: Compose
) -> None:
    prices = (f"simulator.high.price={high}", f"simulator.low.mujoco_reduced.price={low}", f"learner_price={learner}")
    assert Experiment(compose_config("task=BallBalance", *prices)).relative_price == pytest.approx(expected)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("simulator/low=[pybullet,pybullet]",), "simulator/low=['pybullet', 'pybullet']: names an engine twice"),
        (
            ("simulator/low=[default,mujoco]", "task.low=mujoco"),
            "simulator/low: mujoco is chosen",
        ),
        (("simulator/low=[]",), "simulator/low=[]: at least one engine is expected; allowed are ['mujoco'"),
        (("simulator.low=mujoco",), "simulator.low=mujoco: did you mean simulator/low=mujoco?"),
        (("simulator.high=mujoco",), "simulator.high=mujoco: did you mean simulator/high=mujoco?"),
        (
            ("simulator/low=pybullet", "simulator.low.substeps=4"),
            "simulator.low.substeps=4: no such setting; did you mean simulator.low.pybullet.substeps?",
        ),
        (
            ("simulator/low=mujoco", "simulator.low.pybullet.workers=4"),
            "simulator.low.pybullet: E_low is mujoco; choose it with simulator/low=pybullet",
        ),
        (
            ("task.simulators.pybullet.frictoin=1",),
            "task.simulators.pybullet.frictoin: no such setting; did you mean simulators.pybullet.friction",
        ),
    ],
)
def test_wrong_choices(overrides: tuple[str, ...], message: str, compose_config: Compose) -> None:
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        compose_config(*overrides)


FEW = ("num_envs=16", "max_iterations=1", "simulator.high.threads=1", "train.params.config.minibatch_size=32")


@pytest.mark.slow
def test_train_takes_it_and_says_so(run_script: Run) -> None:
    pytest.importorskip("pybullet")
    result = run_script("train.py", *UNCHOSEN, *FEW)
    assert result.returncode == 0, result.stderr
    assert "a transmission to a site" in result.stdout + result.stderr
    assert "E_low: mujoco_reduced on cpu; E_high: mujoco on cpu" in result.stdout + result.stderr


@pytest.mark.slow
def test_pybullet_that_the_user_chose_is_refused(run_script: Run) -> None:
    pytest.importorskip("pybullet")
    result = run_script("train.py", *UNCHOSEN, *FEW, "simulator/low=pybullet")
    assert result.returncode == 2
    assert result.stderr.startswith("error: quadcopter.xml: actuator thrust_0: a transmission to a site")
    assert result.stderr.count("\n") == 1


def test_an_engine_without_environments_is_refused(compose_config: Compose) -> None:
    none = ("simulator.low.pybullet.share=0", "simulator.low.mujoco_reduced.share=1")
    with pytest.raises(ConfigError, match=r"simulator\.low\.pybullet\.share=0: must be more than 0"):
        Experiment(compose_config("task=Ant", "simulator/low=[mujoco_reduced,pybullet]", *none))
