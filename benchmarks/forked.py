"""Processes forked from one that has imported the program: a start of train.py takes half a second instead of four."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import sys
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from dualfid_robot.config.machine import set_environment

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = [
    *("hydra.main", "dualfid_robot.train.launch", "dualfid_robot.simulators.mujoco.simulator"),
    *("dualfid_robot.tasks.cartpole", "torch._dynamo", "torch._inductor", "mujoco_warp", "torch.utils.tensorboard"),
]


def start(
    function: Callable[..., None],
    arguments: tuple[object, ...],
    cwd: Path,
    errors: Path,
    output: Path = Path(os.devnull),
) -> ForkServerProcess:
    """Call a function in a process of its own, with this process' environment.

    Args:
        function: a module's; the process ends with it.
        arguments: what it takes.
        cwd: its present folder.
        errors, output: files that its standard error and its standard output are added to.
    """
    set_environment()
    context = multiprocessing.get_context("forkserver")
    path = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks"), *([path] if path else [])])
    context.set_forkserver_preload(IMPORTED)
    forkserver.ensure_running()  # this checkout's program is what it imports
    if path is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = path
    process = context.Process(target=_call, args=(function, arguments, cwd, errors, output, dict(os.environ)))
    process.start()
    return process


def run_script(script: str, arguments: Sequence[str]) -> None:
    """What `python SCRIPT ARGUMENTS` does, for a script at the repository's top."""
    path = ROOT / script
    sys.path[0] = str(path.parent)
    sys.argv = [str(path), *arguments]
    runpy.run_path(str(path), run_name="__main__")


def _call(
    function: Callable[..., None],
    arguments: tuple[object, ...],
    cwd: Path,
    errors: Path,
    output: Path,
    environment: dict[str, str],
) -> None:
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environment)
    for descriptor, path in ((1, output), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(file, descriptor)
        os.close(file)
    function(*arguments)
