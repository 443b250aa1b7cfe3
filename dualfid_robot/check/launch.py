"""What check_task.py does: everything of evaluate/check_task.py, and whether a policy of the task can be exported."""

from __future__ import annotations

import tempfile
from pathlib import Path

from omegaconf import DictConfig

from dualfid_robot.config.output import plain_console
from dualfid_robot.envs.foreign_task import ForeignTask
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.check_task import check
from dualfid_robot.export.launch import require_packages

_WIDTH = 120  # where the output is no terminal


def launch_check(cfg: DictConfig) -> None:
    """Print what there is to know about a task before it is trained.

    Raises:
        ConfigError: the task, its files or one of its functions is wrong, or its simulators do not take it. It is also
            raised when a random agent meets values that are not finite.
    """
    console = plain_console(width=_WIDTH)
    experiment = check(cfg, console)
    console.print(f"Export: {export_verdict(experiment.make_task())}", soft_wrap=True)


def export_verdict(task: Task) -> str:
    """Whether policies of a task can be exported: "yes", or why not. Its functions are traced for ONNX and C++, and its
    robot is written."""
    if isinstance(task, ForeignTask):
        return f"no: {task.name} keeps its observations to itself"
    try:
        require_packages()
    except ConfigError as error:
        return f"not asked: {error}"
    from dualfid_robot.export.cpp.unrolling import unroll
    from dualfid_robot.export.graphs import write_graphs  # needs what `require_packages` looks for
    from dualfid_robot.export.robot_file import write_robot
    from dualfid_robot.onboard.runtime import OBSERVATION

    with tempfile.TemporaryDirectory() as folder:
        try:
            write_robot(task.robot, Path(folder))
            write_graphs(task, Path(folder))
            unroll(Path(folder) / OBSERVATION)
        except ConfigError as error:
            return f"no: {error}"
    return "yes"
