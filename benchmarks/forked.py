"""Processes forked from one that has imported the program: a start of train.py takes half a second instead of four."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable
from multiprocessing.context import ForkServerProcess
from pathlib import Path

from dualfid_robot.config.machine import set_environment

IMPORTED = [
    *("__main__", "hydra.main", "dualfid_robot.train.launch", "dualfid_robot.simulators.mujoco.simulator"),
    *("dualfid_robot.tasks.cartpole", "torch._dynamo", "torch._inductor", "mujoco_warp", "torch.utils.tensorboard"),
]


def start(function: Callable[..., None], arguments: tuple[object, ...], cwd: Path, log: Path) -> ForkServerProcess:
    """Call a function in a process of its own, in a folder.

    Args:
        function: a module's; the process ends with it.
        arguments: what it takes.
        cwd: its present folder.
        log: file that its standard error is added to; its standard output goes nowhere.
    """
    set_environment()  # the server's, which it inherits; the first call starts it
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    process = context.Process(target=_call, args=(function, arguments, cwd, log))
    process.start()
    return process


def _call(function: Callable[..., None], arguments: tuple[object, ...], cwd: Path, log: Path) -> None:
    os.chdir(cwd)
    for descriptor, path, flags in ((1, os.devnull, os.O_WRONLY), (2, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)):
        os.dup2(os.open(path, flags, 0o644), descriptor)
    function(*arguments)
