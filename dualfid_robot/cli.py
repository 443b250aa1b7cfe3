"""The commands: `dualfid train task=Ant` and the scripts at the repository's top call the same functions.

This module imports neither torch nor an engine, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence

from hydra.errors import HydraException
from omegaconf import DictConfig

from dualfid_robot.config.command_line import exit_with, run
from dualfid_robot.config.help import asks_for_help
from dualfid_robot.config.machine import set_environment
from dualfid_robot.errors import ConfigError


def train() -> None:
    """Train a policy with two simulators, or test one."""
    _launch("train", "train.launch", "launch", config="config", before=_read_run)


def _read_run() -> None:
    """Put the settings of the run that is gone on with before what was typed."""
    if any(text.startswith(("checkpoint=", "resume=")) for text in sys.argv[1:]):
        from dualfid_robot.runs.going_on import arguments_to_go_on  # imports torch, as the job will

        try:
            sys.argv[1:] = arguments_to_go_on(sys.argv[1:])
        except (ConfigError, HydraException, OSError) as error:
            exit_with(error)


def evaluate() -> None:
    """Evaluate a checkpoint in any simulator."""
    _launch("evaluate", "evaluate.launch", "launch_evaluation")


def export() -> None:
    """Export a checkpoint for robots and players."""
    _launch("export", "export.launch", "launch_export", lists=("format", "simulators"))


def play() -> None:
    """Look at a trained policy: one of yours, or one that ships."""
    _launch("play", "play.launch", "launch_play")


def transfer() -> None:
    """Compare policies in several simulators and changed worlds."""
    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    lists = ("checkpoint", "simulators", "policies", "dial", "perturb")
    _launch("transfer", "transfer.launch", "launch_transfer", lists=lists)


def study() -> None:
    """Run an experiment plan on all cores and report on it."""
    if not asks_for_help(sys.argv[1:]):
        from dualfid_robot.studies.launcher import require_launcher

        try:
            require_launcher(sys.argv[1:])
        except ConfigError as error:
            exit_with(error)
    _launch("study", "studies.launcher", "launch_study")


def check() -> None:
    """Look at a task before training it."""
    _launch("check", "check.launch", "launch_check", config="check_task")


def import_robot() -> None:
    """Make an MJCF to train with from a URDF, or from another MJCF."""
    lists, positional = ("package_path",), ("source", "out")
    _launch("import_robot", "robots.importer.launch", "launch_import", lists=lists, positional=positional, loads="")


def calibrate() -> None:
    """Fit a task's low simulator to its high one."""
    _launch("calibrate", "calibrate.launch", "launch_calibration")


def isaacgym() -> None:
    """Run a script that imports isaacgym, on an engine of ours."""
    from dualfid_robot.isaacgym.__main__ import main as run_script

    set_environment()
    run_script()


COMMANDS = {
    function.__name__: function
    for function in (train, evaluate, export, play, transfer, study, check, import_robot, calibrate, isaacgym)
}


def main() -> None:
    """`dualfid <command> <settings>`: the command of that name with the settings behind it."""
    name = sys.argv[1] if len(sys.argv) > 1 else "--help"
    if name in ("--help", "-h"):
        print(_usage())
    elif name in COMMANDS:
        sys.argv[:2] = [f"dualfid {name}"]
        COMMANDS[name]()
    else:
        exit_with(ConfigError(f"{name}: no such command; allowed are {list(COMMANDS)}"))


def _usage() -> str:
    lines = ["Robot policies trained in two simulators at once.", "", "dualfid <command> [settings]", ""]
    lines += [f"  {name:<13} {function.__doc__}" for name, function in COMMANDS.items()]
    return "\n".join([*lines, "", "dualfid <command> --help lists the settings of a command."])


def _launch(
    name: str,
    module: str,
    function: str,
    config: str = "",
    lists: Sequence[str] = (),
    positional: Sequence[str] = (),
    before: Callable[[], None] | None = None,
    loads: str = "PyTorch and the simulators",
) -> None:
    """Run a command.

    Args:
        name: of the command, and of its file in cfg/ where `config` names no other.
        module, function: what takes its configuration; imported when that is composed.
        lists, positional: see `command_line.run`.
        before: what is done to the command line first.
        loads: what takes seconds to import, which a line says at once; empty where nothing does.
    """
    set_environment()
    if loads and not any(text.startswith("-") and text not in ("-m", "--multirun") for text in sys.argv[1:]):
        print(f"{name}: {loads} are being loaded", flush=True)
    if before is not None:
        before()

    def job(cfg: DictConfig) -> None:
        getattr(importlib.import_module(f"dualfid_robot.{module}"), function)(cfg)

    job.__module__ = name  # by which Hydra calls the program
    run(name, job, config or name, lists, positional)


def quoted(argument: str) -> str:
    """`perturb=[friction=0.5]` with its elements in quotes, as Hydra wants texts that hold an equals sign."""
    key, separator, value = argument.partition("=")
    if key != "perturb" or "=" not in value or "'" in value or '"' in value:
        return argument
    return key + separator + re.sub(r"[^,\[\]]+", lambda element: f"'{element[0].strip()}'", value)
