"""Compiles every kernel that our robots need for a GPU, without one: `python benchmarks/gpu_compile.py Ant Cartpole`.

Each robot is stepped on Warp's CPU device at both fidelities. That tells which kernels it needs, MuJoCo Warp's and
ours. Each module is then compiled to machine code for NVIDIA's compute capability 9.0. A robot takes minutes.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
import warp
from warp._src import context

from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment

ARCHITECTURE = 90
TASKS = ("Ant", "Anymal", "AnymalTerrain", "BallBalance", "Cartpole", "FrankaCabinet", "Humanoid", "Quadcopter")


def step(task: str) -> None:
    """Step a task's robot once at both fidelities."""
    engines = ("mujoco_warp", "mujoco_warp_reduced")
    with hydra_apart():
        cfg = compose_config([f"task={task}", f"simulator/high={engines[0]}", f"simulator/low={engines[1]}"])
    experiment = Experiment(cfg)
    for engine in (experiment.high_engine, *experiment.low_engines):
        pool = experiment.make_pool(engine, 2, seed=0)
        pool.step(torch.zeros(2, pool.task.num_actions))
        pool.simulator.close()


def used_modules() -> list[str]:
    """Names of Warp's modules whose kernels have run in this process."""
    return [name for name, module in context.user_modules.items() if module.execs]


def compile_modules(names: Sequence[str], folder: Path) -> dict[str, int]:
    """Compile modules to machine code.

    Returns:
        Bytes of it, by module.

    Raises:
        RuntimeError: a module cannot be compiled, or there is no code of it.
    """
    sizes = {}
    for name in names:
        place = folder / name
        place.mkdir()
        warp.compile_aot_module(context.user_modules[name], arch=ARCHITECTURE, module_dir=place, use_ptx=False)
        sizes[name] = sum(path.stat().st_size for path in place.glob(f"*.sm{ARCHITECTURE}.cubin"))
        if not sizes[name]:
            raise RuntimeError(f"{name}: there is no code for compute capability {ARCHITECTURE / 10}")
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tasks", nargs="*", default=TASKS, help="whose robots")
    for task in parser.parse_args().tasks:
        step(task)
        print(f"{task}: {len(used_modules())} modules so far", flush=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        sizes = compile_modules(used_modules(), Path(name))
    print(f"{len(sizes)} modules, {sum(sizes.values()) / 1e6:.1f} MB of code, {time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
