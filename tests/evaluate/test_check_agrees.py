"""What check_task.py passes, train.py runs, and what it refuses, train.py refuses: over every robot of the tests."""

from __future__ import annotations

import copy
import functools
import importlib.util
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from any_robot import QUICK, robots_of_others, set_up_user
from omegaconf import DictConfig
from rich.console import Console

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.conformance.robots import OWN
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.check_task import check
from dualfid_robot.train.trainer import Trainer

SMALL = (
    *("num_envs=4", "train.params.config.horizon_length=4", "train.params.config.minibatch_size=16"),
    *("train.params.network.mlp.units=[4]", "simulator.high.threads=1", "allocation=fixed"),
)

SCENE = '<mujoco>{options}<worldbody><geom type="plane" size="1 1 1"/>{bodies}</worldbody>{rest}</mujoco>'
BODY = '<body name="arm"><joint name="hinge"{joint}/><geom name="link" size=".1"{geom}/></body>'
MOTOR = '<actuator><motor joint="hinge"/></actuator>'
BROKEN: dict[str, str] = {
    "no file": "",
    "half a file": "<mujoco><worldbody>",
    "not XML": "\x00\x01",
    "no worldbody": "<mujoco/>",
    "no joints": SCENE.format(options="", bodies='<body><geom size=".1"/></body>', rest=""),
    "no actuators": SCENE.format(options="", bodies=BODY.format(joint="", geom=""), rest=""),
    "no mass": SCENE.format(options="", bodies=BODY.format(joint="", geom=' mass="0"'), rest=MOTOR),
    "a mass of nan": SCENE.format(options="", bodies=BODY.format(joint="", geom=' mass="nan"'), rest=MOTOR),
    "a spring of 1e30": SCENE.format(options="", bodies=BODY.format(joint=' stiffness="1e30"', geom=""), rest=MOTOR),
    "a gear of 1e30": SCENE.format(
        options="", bodies=BODY.format(joint="", geom=""), rest=MOTOR.replace("/>", ' gear="1e30"/>')
    ),
    "limits the wrong way": SCENE.format(
        options="", bodies=BODY.format(joint=' limited="true" range="1 -1"', geom=""), rest=MOTOR
    ),
    "no gravity": SCENE.format(
        options='<option><flag gravity="disable"/></option>', bodies=BODY.format(joint="", geom=""), rest=MOTOR
    ),
    "a wind": SCENE.format(
        options='<option wind="1 0 0" density="1"/>', bodies=BODY.format(joint="", geom=""), rest=MOTOR
    ),
    "a free body without feet": SCENE.format(
        options="",
        bodies='<body pos="0 0 1"><freejoint/><geom size=".1"/>' + BODY.format(joint="", geom="") + "</body>",
        rest=MOTOR,
    ),
    "an unknown joint": SCENE.format(
        options="", bodies=BODY.format(joint="", geom=""), rest=MOTOR.replace("hinge", "hip")
    ),
}
FEET = {"workshop": ("drawer", "ball", "block"), "sled": ("sled",)}


def robot_files() -> dict[str, tuple[Path | str, tuple[str, ...]]]:
    """Files, or the texts of files, and which bodies are feet."""
    own = [*sorted(ASSETS.glob("*.xml")), *sorted(OWN.glob("*.xml"))]
    found: dict[str, tuple[Path | str, tuple[str, ...]]] = {}
    found |= {path.stem: (path, FEET.get(path.stem, ())) for path in own}
    found["ant with feet"] = (ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
    found |= robots_of_others()
    found |= {name: (text, ()) for name, text in BROKEN.items()}
    found["a foot that is missing"] = (ASSETS / "ant.xml", ("foot_5",))
    return found


def outcome(function: Callable[[], object]) -> str:
    """The line by which it is refused; empty where it runs."""
    try:
        function()
    except ConfigError as error:
        assert str(error) and "\n" not in str(error)
        return str(error)
    return ""


Composed = Callable[[str, str, Path, tuple[str, ...]], DictConfig]


@pytest.fixture(scope="module")
def composed(tmp_path_factory: pytest.TempPathFactory) -> Composed:
    """The configuration of a command (check_task or config) with a low simulator, for a robot and its feet. Hydra
    composes one for all robots, which takes longer than the rest of a test."""
    settings = [*set_up_user(tmp_path_factory.mktemp("user"), Path("nothing.xml"), ()), "task=AnyRobot"]

    @functools.cache
    def of(command: str, low: str) -> DictConfig:
        all_ = [*settings, f"simulator/low={low}", f"simulator.low.{low}.substeps=4", "task.env.episodeLength=4"]
        all_ += ["simulator.low.pybullet.workers=1"] * (low == "pybullet")
        with hydra_apart():
            return compose_config([*(QUICK if command == "check_task" else SMALL), *all_], command)

    def with_robot(command: str, low: str, file: Path, feet: tuple[str, ...]) -> DictConfig:
        cfg = copy.deepcopy(of(command, low))
        cfg.task.asset.assetFileName, cfg.task.asset.feet = str(file), list(feet)
        return cfg

    return with_robot


@pytest.mark.filterwarnings("ignore:compiler attribute 'settotalmass'")
@pytest.mark.parametrize("low", ["mujoco_reduced", pytest.param("pybullet", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", robot_files())
def test_they_agree(name: str, low: str, composed: Composed, tmp_path: Path) -> None:
    if low == "pybullet" and importlib.util.find_spec("pybullet") is None:
        pytest.skip("PyBullet is not installed")
    file, feet = robot_files()[name]
    if isinstance(file, str):
        (tmp_path / "robot.xml").write_text(file)
        file = tmp_path / "robot.xml"

    def checked() -> None:
        check(composed("check_task", low, file, feet), Console(file=io.StringIO()))

    def trained() -> None:
        trainer = Trainer(Experiment(composed("config", low, file, feet)))
        try:
            for _ in range(2):
                trainer.iterate()
        finally:
            trainer.close()

    verdict, result = outcome(checked), outcome(trained)
    assert bool(verdict) == bool(result), f"check_task.py: {verdict or 'passes'}\ntrain.py: {result or 'trains'}"
