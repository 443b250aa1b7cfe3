"""A checkpoint notices that its robot or its task's code is no longer what it was."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import mujoco
import pytest
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.registry import _task_class
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import load_checkpoint
from dualfid_robot.runs.identity import code_digest, robot_digests
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.tasks.ant import Ant
from dualfid_robot.tasks.cartpole import Cartpole
from dualfid_robot.train.trainer import Trainer

SMALL = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=32", "train.params.config.minibatch_size=64")
ARM = """<mujoco><worldbody><body name="arm"><freejoint/><geom name="a" size="0.1" rgba="{rgba}"/>
<body name="x"><joint name="{first}" axis="1 0 0" range="{range}"/><geom size="0.1"/>
<joint name="{second}" axis="0 1 0"/></body></body></worldbody></mujoco>"""
PLAIN = {"rgba": "1 0 0 1", "first": "roll", "second": "pitch", "range": "-1 1"}


@pytest.mark.parametrize(
    ("change", "noticed"),
    [
        ({"rgba": "0 1 0 1"}, set()),
        ({"range": "-1 1.5"}, {"jnt_range"}),
        ({"first": "pitch", "second": "roll"}, {"names"}),
    ],
)
def test_what_moves_is_compared_and_colours_are_not(change: dict[str, str], noticed: set[str]) -> None:
    one, other = (robot_digests(mujoco.MjModel.from_xml_string(ARM.format(**PLAIN | text))) for text in ({}, change))
    assert {name for name in one if one[name] != other[name]} == noticed


def test_gravity_and_the_integrator_are_compared() -> None:
    model = mujoco.MjModel.from_xml_path(str(ASSETS / "ant.xml"))
    before = robot_digests(model)
    model.opt.gravity[2] = -9.0
    model.opt.integrator = mujoco.mjtIntegrator.mjINT_RK4
    after = robot_digests(model)
    assert {name for name in before if before[name] != after[name]} == {"opt.gravity", "opt.integrator"}


def test_every_task_has_its_own_code() -> None:
    assert code_digest(Ant) != code_digest(Cartpole) and code_digest(Ant) == code_digest(Ant)


def test_comments_and_docstrings_are_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "from dualfid_robot.envs.task import Task\nclass {}(Task):\n    {}\n    pace = {}\n"
    digests = []
    for name, text, pace in (("A", '"""One."""', 1), ("A", "# two", 1), ("A", "", 2)):
        path = tmp_path / f"module{len(digests)}.py"
        path.write_text(source.format(name, text, pace))
        monkeypatch.syspath_prepend(str(tmp_path))
        digests.append(code_digest(getattr(__import__(path.stem), name)))
    assert digests[0] == digests[1] != digests[2]


HELPED = """from .{stem} import PACE
from dualfid_robot.envs.task import Task
class Helped(Task):
    pace = PACE
"""


def test_what_a_task_imports_from_its_own_folder_is_its_code(tmp_path: Path) -> None:
    digests = []
    for number, (helper, deeper) in enumerate([("", "1"), ("# a word", "1"), ("", "2"), ("STEP = 3", "1")]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "helped.py").write_text(HELPED.format(stem="helper"))
        (folder / "helper.py").write_text(f"from . import deeper\nPACE = deeper.PACE\n{helper}\n")
        (folder / "deeper.py").write_text(f"PACE = {deeper}\n")
        digests.append(code_digest(_task_class("Helped", [folder])))
    assert digests[0] == digests[1] and len(set(digests)) == 3


def test_a_checkpoint_knows_the_code_that_ran_and_not_what_the_file_says_later(
    compose_config: Callable[..., DictConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = Trainer(Experiment(compose_config(*SMALL)))
    monkeypatch.setattr("dualfid_robot.runs.identity._digest", lambda content: "of the edited file")
    trainer.save(tmp_path / "x.pth")
    trainer.close()
    assert load_checkpoint(tmp_path / "x.pth")["task_code"] != "of the edited file"


def test_a_changed_robot_is_refused_by_training_and_announced_by_evaluation(
    compose_config: Callable[..., DictConfig], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    asset = tmp_path / "cart.xml"
    asset.write_text((ASSETS / "cartpole.xml").read_text())
    config = compose_config(*SMALL, f"task.asset.assetFileName={asset}")
    checkpoint = tmp_path / "x.pth"
    trainer = Trainer(Experiment(config))
    trainer.iterate()
    trainer.save(checkpoint)
    trainer.resume(checkpoint)
    trainer.close()
    load_policy(checkpoint)
    assert not caplog.records

    text = asset.read_text()
    asset.write_text(text.replace("</worldbody>", '<body name="b"><geom size="1"/></body></worldbody>'))
    trainer = Trainer(Experiment(config))
    changed = f"checkpoint={checkpoint}: the robot cart.xml has changed in "
    with pytest.raises(ConfigError, match="accept_changes=True goes on nevertheless") as refused:
        trainer.resume(checkpoint)
    assert str(refused.value).startswith(changed) and "\n" not in str(refused.value)
    with caplog.at_level(logging.WARNING):
        trainer.resume(checkpoint, accept_changes=True)
        load_policy(checkpoint)
    assert [record.getMessage().startswith(changed) for record in caplog.records] == [True, True]
    trainer.close()
