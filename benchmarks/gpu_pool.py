"""MuJoCo Warp's worlds: a bare loop of its step, our pool and simulator, part of the worlds stepped, memory.

    python benchmarks/gpu_pool.py                                       # cuda:0, 1024 4096 8192 16384 worlds
    python benchmarks/gpu_pool.py --device cpu --worlds 64 256          # rehearsal on Warp's CPU device

Our Ant is measured with its task, and Gymnasium's humanoid without one, since it has no task here. The bare loop is
MuJoCo Warp alone, as its own mjwarp-testspeed runs it: one graph, launched again and again. Here the graph has all
substeps of a control period, with buffers of the same sizes as ours. Before each round the loop is given the states of
our pool, and both get the same random controls. Figures are medians of rounds in turn. Target: pool ≥ 0.9 of the bare
loop. Needs the extras `gpu` and `benchmark`. The figures are also written to docs/gpu_pool_<device type>.json.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import json
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mujoco_warp
import torch
import warp
from timing import measure_in_turn
from torch import Tensor

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.registry import make_task
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.simulators.mujoco_warp.simulator import MujocoWarpSimulator

ROOT = Path(__file__).parents[1]

PERIODS = 8  # control periods in a timed round
FRACTIONS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4, 1.0)


@dataclasses.dataclass(frozen=True)
class Subject:
    """What is stepped.

    Attributes:
        name: for the printout.
        robot: its asset.
        control_dt: s.
        config: the engine's settings.
        task: name of its task, if it has one.
    """

    name: str
    robot: RobotModel
    control_dt: float
    config: MujocoWarpSimulator.Config
    task: str | None = None


def ant() -> Subject:
    robot = RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
    return Subject("Ant", robot, 1 / 60, MujocoWarpSimulator.Config(), "Ant")


def humanoid() -> Subject:
    import gymnasium.envs.mujoco as gymnasium_mujoco

    asset = Path(gymnasium_mujoco.__file__).parent / "assets" / "humanoid.xml"
    return Subject("Humanoid", RobotModel(asset), 0.015, MujocoWarpSimulator.Config(substeps=5, cone="pyramidal"))


class BareLoop:
    """MuJoCo Warp's own functions and nothing else."""

    def __init__(self, simulator: MujocoWarpSimulator, subject: Subject) -> None:
        config, device = subject.config, simulator.qpos.device
        model = subject.robot.compile(
            subject.control_dt / config.substeps, config.integrator, config.cone, config.iterations, config.contacts
        )
        model.opt.disableflags &= simulator.model.opt.disableflags  # MuJoCo Warp does not know all of MuJoCo's flags
        with warp.ScopedDevice(warp.device_from_torch(device)):
            self._model = mujoco_warp.put_model(model)
            self._data = mujoco_warp.make_data(model, simulator.num_worlds, **simulator.buffers)
            with warp.ScopedCapture() as capture:
                for _ in range(config.substeps):
                    mujoco_warp.step(self._model, self._data)
        self._graph = capture.graph
        self._stream = warp.stream_from_torch(device) if device.type == "cuda" else None
        self._ctrl = warp.to_torch(self._data.ctrl)

    def load(self, simulator: MujocoWarpSimulator) -> None:
        """Take over the state of another simulator's worlds."""
        for name, array in simulator.snapshot().items():
            if name in ("qpos", "qvel", "qacc_warmstart"):
                warp.to_torch(getattr(self._data, name)).copy_(torch.from_numpy(array))

    def step(self, ctrl: Tensor) -> None:
        self._ctrl.copy_(ctrl)
        warp.capture_launch(self._graph, self._stream)


def measure(subject: Subject, worlds: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """All figures of one robot at one number of worlds."""
    robot, substeps = subject.robot, subject.config.substeps
    free_before = torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    task = None
    if subject.task is not None:
        settings = {"numEnvs": worlds, "episodeLength": 1000}
        task = make_task(subject.task, settings, robot, subject.control_dt, device)
    bodies = task.contact_bodies if task is not None else ()
    simulator = MujocoWarpSimulator(subject.config, robot, worlds, subject.control_dt, bodies, device)
    generator = torch.Generator().manual_seed(0)
    ctrls = [torch.rand(worlds, robot.model.nu, generator=generator).to(device) * 2 - 1 for _ in range(PERIODS)]
    if task is not None:
        pool = EnvironmentPool(simulator, task, seed=0)
        ours: Callable[[Tensor], None] = pool.step
    else:
        ours = lambda ctrl: simulator.step(ctrl, worlds)  # noqa: E731
    for ctrl in ctrls * 4:  # away from the synchronous start
        ours(ctrl)
    synchronise(device)
    used = free_before - torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 0
    bare = BareLoop(simulator, subject)

    def rounds_of(step: Callable[[Tensor], None]) -> Callable[[], None]:
        def run() -> None:
            for ctrl in ctrls:
                step(ctrl)
            synchronise(device)

        return run

    # On CUDA these are queued on torch's stream, and the controls of the task's robot are its actions.
    label = "pool" if task is not None else "simulator"
    medians = measure_in_turn(
        {"copy": lambda: bare.load(simulator), "bare": rounds_of(bare.step), label: rounds_of(ours)}, rounds
    )
    overflows = simulator.take_overflows()
    curve = prefix_curve(simulator, ctrls, rounds, device)
    steps = worlds * substeps * PERIODS
    figures = {
        "robot": subject.name,
        "worlds": worlds,
        "substeps": substeps,
        "bare physics steps/s": steps / medians["bare"],
        f"{label} physics steps/s": steps / medians[label],
        f"{label} / bare": medians["bare"] / medians[label],
        "ms per control period by worlds stepped": curve,
        "MB of arrays": megabytes(simulator._worlds.data),
        "MB of device memory": used / 1e6 if device.type == "cuda" else None,
        "buffers": simulator.buffers,
        "overflows": overflows,
    }
    simulator.close()
    return figures


def prefix_curve(
    simulator: MujocoWarpSimulator, ctrls: list[Tensor], rounds: int, device: torch.device
) -> dict[int, float]:
    """Milliseconds of a control period of the first n worlds, by n, from the same states."""
    counts = sorted({max(1, round(fraction * simulator.num_worlds)) for fraction in FRACTIONS})
    state = simulator.snapshot()

    def stepping(n: int) -> Callable[[], None]:
        def run() -> None:
            for ctrl in ctrls[:2]:
                simulator.step(ctrl[:n], n)
            synchronise(device)

        return run

    actions: dict[str, Callable[[], object]] = {}
    for n in counts:
        actions[f"restore {n}"] = lambda: simulator.restore(state)
        actions[str(n)] = stepping(n)
    medians = measure_in_turn(actions, max(3, rounds // 2))
    return {n: medians[str(n)] / 2 * 1e3 for n in counts}


def megabytes(data: Any) -> float:
    """Size of all arrays of a structure and of those inside it."""
    total = 0.0
    for field in dataclasses.fields(data):
        value = getattr(data, field.name)
        if dataclasses.is_dataclass(value):
            total += megabytes(value)
        elif isinstance(value, warp.array):
            total += value.capacity / 1e6
    return total


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def show(figures: dict[str, Any]) -> None:
    buffers = ", ".join(f"{name} {size}" for name, size in figures["buffers"].items())
    print(f"{figures['robot']}, {figures['worlds']} worlds, {figures['substeps']} substeps, {buffers}")
    for name, value in figures.items():
        if name.endswith("steps/s"):
            print(f"  {name:32} {value:14,.0f}")
        elif name.endswith("/ bare"):
            print(f"  {name + ' throughput':32} {value:14.3f}  (target 0.9)")
        elif name.startswith("MB") and value is not None:
            print(f"  {name:32} {value:14.1f}")
    curve = figures["ms per control period by worlds stepped"]
    print("  a control period of the first n worlds, and its part of the time of all")
    for n, milliseconds in curve.items():
        part, proportion = milliseconds / curve[max(curve)], n / max(curve)
        print(f"    n = {n:6} {milliseconds:10.2f} ms {part:7.3f}  (in proportion {proportion:.3f})")
    if figures["overflows"]:
        print(f"  {figures['overflows']} worlds × physics steps lost contacts: these figures are of other physics")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--worlds", type=int, nargs="+", help="default: 1024 4096 8192 16384, on the CPU 64 256")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds of each thing")
    parser.add_argument("--robots", nargs="+", choices=["Ant", "Humanoid"], default=["Ant", "Humanoid"])
    options = parser.parse_args()
    device = torch.device(options.device)
    worlds = options.worlds or ([1024, 4096, 8192, 16384] if device.type == "cuda" else [64, 256])
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"Warp's CPU device ({platform.machine()})"
    print(f"{where}; warp {warp.__version__}, MuJoCo Warp {mujoco_warp.__version__}, torch {torch.__version__}")
    results = []
    subjects = {"Ant": ant, "Humanoid": humanoid}
    for name in options.robots:
        for n in worlds:
            results.append(measure(subjects[name](), n, device, options.rounds))
            show(results[-1])
            gc.collect()
    path = ROOT / "docs" / f"gpu_pool_{device.type}.json"
    path.write_text(json.dumps({"device": where, "results": results}, indent=1) + "\n")
    print(f"written to {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
