"""The policies that ship with the program fit it: whole files, the tasks' own robots, and returns as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import DictConfig

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.onboard.runtime import ExportedPolicy
from dualfid_robot.play.choice import POLICIES, shipped_policies
from dualfid_robot.play.player import Player
from dualfid_robot.play.simulated_robot import SimulatedRobot
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.runs.identity import robot_digests

PAGE = Path(__file__).parents[2] / "docs" / "shipped_policies.md"


def test_some_ship_and_the_page_lists_them() -> None:
    assert "Cartpole" in shipped_policies()
    rows = [line.split("|")[1].strip() for line in PAGE.read_text().splitlines() if line.startswith("| ")]
    assert rows[1:] == shipped_policies()


@pytest.mark.parametrize("task", shipped_policies())
def test_a_shipped_policy_is_whole_small_and_of_the_tasks_robot(
    task: str, compose_config: Callable[..., DictConfig]
) -> None:
    policy = ExportedPolicy(POLICIES / task)
    metadata = policy.metadata
    assert (metadata.task, metadata.policy.head) == (task, "dial")
    assert sum(path.stat().st_size for path in policy.folder.iterdir()) < 1_000_000
    experiment = Experiment(compose_config(f"task={task}"))
    ours, theirs = experiment.robot.model, RobotModel(policy.folder / metadata.robot.file).model
    now, then = robot_digests(ours), robot_digests(theirs)
    assert [key for key in now if now[key] != then[key]] == []
    names = [term.name for term in experiment.make_task().terms]
    assert [term.name for term in metadata.observation] == names


@pytest.mark.parametrize("task", shipped_policies())
def test_it_still_does_what_it_did(task: str) -> None:
    """The first episode's first seconds, in the engine of the exporter's evaluation."""
    policy = ExportedPolicy(POLICIES / task)
    metadata = policy.metadata
    stored = next(iter(metadata.evaluations.values()))
    robot = SimulatedRobot.build(
        metadata, RobotModel(policy.folder / "robot.xml", metadata.robot.feet), stored.simulator | {"threads": 1}, 4
    )
    try:
        evaluation = Player(policy, robot).play(100)
    finally:
        robot.close()
    ran = np.minimum(stored.lengths[:4], 100)
    assert np.median(evaluation.lengths) >= 0.5 * np.median(ran)
