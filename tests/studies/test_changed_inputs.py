"""A study that goes on says which of its finished runs had another robot or another code of their task."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.runs.identity import identity
from dualfid_robot.studies.launcher import outdated
from dualfid_robot.studies.plan import PlannedStudy
from dualfid_robot.studies.run_folder import RunFolder


def test_finished_runs_of_another_robot_are_named(tmp_path: Path) -> None:
    with hydra_apart():
        experiment = Experiment(compose_config(["task=Cartpole", "simulator/low=mujoco_reduced"]))
    now = {key: identity(experiment)[key] for key in ("robot", "task_code")}
    robot, code = now | {"robot": now["robot"] | {"jnt_range": "?"}}, now | {"task_code": "?"}
    made: dict[str, dict[str, Any] | None] = {"a": now, "b": robot, "c": robot, "d": code, "e": code, "old": None}
    for name, digests in made.items():
        folder = RunFolder(tmp_path / name)
        folder.describe({})
        if digests is not None:
            folder.save_made_of(digests)
        if name != "e":
            folder.finish({"status": "finished"})
    runs = [SimpleNamespace(id=name, task="Cartpole") for name in made]
    study = SimpleNamespace(
        experiments={"Cartpole": experiment}, runs=runs, folder_of=lambda run: RunFolder(tmp_path / run.id)
    )
    rest = "; those are not run again, unless their folders are removed"
    assert outdated(cast(PlannedStudy, study)) == [
        f"the robot cartpole.xml has changed in jnt_range since 2 runs finished, such as b{rest}",
        f"the code of task Cartpole has changed since 1 run finished, such as d{rest}",
    ]
