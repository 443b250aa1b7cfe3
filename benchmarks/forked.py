"""Processes forked from one that has imported the program: a start of train.py takes half a second instead of four."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from multiprocessing import forkserver
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from dualfid_robot.config.machine import set_environment

ROOT = Path(__file__).resolve().parents[1]
IMPORTED = [
    *("dualfid_robot.train.launch", "dualfid_robot.evaluate.launch", "onnxscript.optimizer"),
    *("dualfid_robot.simulators.mujoco.simulator", "dualfid_robot.tasks.cartpole", "mujoco_warp", "scipy.stats"),
    *("dualfid_robot.policies.bfloat16_kernels", "torch._dynamo", "torch._inductor", "torch.utils.tensorboard"),
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
    context.set_forkserver_preload(["composed_once", *IMPORTED])
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


def run_module(module: str, arguments: Sequence[str]) -> None:
    """What `python -m MODULE ARGUMENTS` does."""
    sys.path[0] = os.getcwd()
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def completed(
    function: Callable[..., None], arguments: tuple[object, ...], cwd: Path, timeout: float = 300.0
) -> subprocess.CompletedProcess[str]:
    """Call a function as `start` does, and wait for its end.

    Raises:
        subprocess.TimeoutExpired: it takes longer than so many seconds.
    """
    with tempfile.TemporaryDirectory() as name:
        errors, output = Path(name) / "errors", Path(name) / "output"
        process = start(function, arguments, cwd, errors, output)
        process.join(timeout)
        if process.exitcode is None:
            process.kill()
            raise subprocess.TimeoutExpired(str(arguments), timeout, output.read_text(), errors.read_text())
        return subprocess.CompletedProcess(arguments, process.exitcode, output.read_text(), errors.read_text())


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
