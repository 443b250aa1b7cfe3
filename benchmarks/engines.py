"""Every engine's residuals, limits and cost, as the table of docs/engines.md.

    python benchmarks/engines.py

It measures what tests/simulators/ tests, by the same functions (dualfid_robot/conformance/), in every engine that can
run here. Then it times the engines in turn, on Ants that stand up under random control. The first run of MuJoCo Warp
compiles its kernels, which takes minutes.
"""

from __future__ import annotations

import dualfid_robot  # first: it tells torch's threads to sleep when idle  # isort: skip  # noqa: F401

import os
import platform
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path

import torch
from timing import measure_in_turn, rounds_argument

from dualfid_robot.conformance import PROPERTIES
from dualfid_robot.conformance.cases import CASES, Engine
from dualfid_robot.conformance.foreign import drive_for_a_second, gymnasium_robots
from dualfid_robot.conformance.robots import ANT
from dualfid_robot.conformance.worlds import put, standing, step
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.runs.run_log import processor
from dualfid_robot.simulators.base import Simulator
from dualfid_robot.simulators.registry import engine_class

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "engines.md"
BEGIN, END = "<!-- begin: python benchmarks/engines.py -->\n", "<!-- end -->\n"
WORLDS, PERIODS = 256, 8
NOT_PROVIDED = "not provided"  # of `Simulator`'s quantities that not every engine has


class Workshop:
    """Builds simulators of one engine, and closes them at the end."""

    def __init__(self, engine: Engine) -> None:
        self._engine, self._made = engine, list[Simulator]()

    def __call__(self, robot: RobotModel, n: int, *args: object, **settings: object) -> Simulator:
        self._made.append(self._engine.build(robot, n, *args, **settings))  # type: ignore[arg-type]
        return self._made[-1]

    def close(self) -> None:
        for simulator in self._made:
            simulator.close()


def attempt(engine: Engine, action: Callable[[Workshop], str]) -> str:
    """What an action says, or how the engine refuses or fails."""
    workshop = Workshop(engine)
    try:
        return action(workshop)
    except ConfigError as error:
        return f"refused: {error}"
    except AssertionError as error:
        return f"fails: {error}"
    finally:
        workshop.close()


def residual(engine: Engine, name: str) -> str:
    """A cell of the table: what was measured, and the bound where it is beyond it."""
    parameter = PROPERTIES[name].parameter
    if parameter and parameter not in engine_class(engine.settings["engine"]).SUPPORTED_PARAMETERS:
        return "not supported"

    def measure(workshop: Workshop) -> str:
        value, bound = PROPERTIES[name].measure(workshop), engine.bound(name)
        return scientific(value) + (f" (beyond its bound, {scientific(bound)})" if value > bound else "")

    return attempt(engine, measure)


def scientific(value: float) -> str:
    """Two digits: 1.2e-5, 0.034."""
    if value == 0.0 or value >= 1e-3:
        return f"{value:.2g}"
    digits, exponent = f"{value:.1e}".split("e")
    return f"{digits}e{int(exponent)}"


def drive(engine: Engine, robot: RobotModel) -> str:
    def action(workshop: Workshop) -> str:
        drive_for_a_second(workshop, robot)
        return "moves"

    return attempt(engine, action)


def costs(engines: dict[str, Engine], rounds: int) -> dict[str, str]:
    """Microseconds of a control period of one Ant. The engines take turns."""
    generator = torch.Generator().manual_seed(0)
    controls = [2 * torch.rand(WORLDS, 8, generator=generator) - 1 for _ in range(PERIODS)]
    simulators = {name: engine.build(ANT, WORLDS, bodies=ANT.feet, **cores(engine)) for name, engine in engines.items()}

    def periods(simulator: Simulator) -> Callable[[], object]:
        def action() -> None:
            put(simulator, *standing(ANT, WORLDS))
            for control in controls:
                step(simulator, control)
            simulator.qpos.cpu()  # waits for a device

        return action

    medians = measure_in_turn({name: periods(each) for name, each in simulators.items()}, rounds)
    for simulator in simulators.values():
        simulator.close()
    return {name: f"{seconds / WORLDS / PERIODS * 1e6:.3g}" for name, seconds in medians.items()}


def cores(engine: Engine) -> dict[str, int]:
    """Settings with which an engine of processes takes all CPUs, in shares of usual size, unlike in the tests."""
    usual = {"workers": 0, "robots_per_client": 16}
    return {key: usual[key] for key in usual if key in engine.settings}


def rows(header: Iterable[str], body: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ["---"] * len(header), *body]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def listed(title: str, lines: list[str]) -> str:
    return f"\n{title}:\n\n" + "".join(f"- {line}\n" for line in lines) if lines else ""


def machine() -> str:
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return (
        f"{os.cpu_count()} cores of {processor()}{gpu}, Python {platform.python_version()}, torch {torch.__version__}"
    )


def main(rounds: int) -> None:
    missing = {name: reason for name, engine in CASES.items() if (reason := engine.missing())}
    engines = {name: engine for name, engine in CASES.items() if name not in missing}
    refusals: list[str] = []

    def cell(engine: str, subject: str, text: str) -> str:
        print(f"{engine}, {subject}: {text}", flush=True)
        if not text.startswith(("refused", "fails")):
            return text
        if text.endswith(NOT_PROVIDED):
            return NOT_PROVIDED
        refusals.append(f"{engine}, {subject}: {text}")
        return text.partition(":")[0]

    packages = ["version", *(f"{each.package} {version(each.package)}" for each in engines.values())]
    devices = ["device", *(each.device for each in engines.values())]
    residuals = [
        [f"{name} ({each.unit})" if each.unit else name]
        + [cell(engine, name, residual(case, name)) for engine, case in engines.items()]
        for name, each in PROPERTIES.items()
    ]
    repeats = ["a run repeats itself", *(case.determinism for case in engines.values())]
    robots = [
        [name] + [cell(engine, name, drive(case, robot)) for engine, case in engines.items()]
        for name, robot in gymnasium_robots().items()
    ]
    load = os.getloadavg()[0]
    found = costs(engines, rounds)
    cost = ["cost of an env step of Ant (µs)", *(found[engine] for engine in engines)]
    text = (
        f"Measured on {machine()}.\n\n"
        + rows(["", *engines], [packages, devices, *residuals, repeats, cost])
        + "\nGymnasium's robots, for a second under random controls:\n\n"
        + rows(["", *engines], robots)
        + listed("Refused or failed", refusals)
        + listed("Not measured here", [f"{name}: {reason}" for name, reason in missing.items()])
        + listed("What the rows mean", [f"**{name}**: {each.explanation}" for name, each in PROPERTIES.items()])
        + f"- **cost of an env step of Ant**: {WORLDS} Ants that stand up under random control at 60 Hz for {PERIODS} "
        f"control periods, contact wrenches of the feet included, all CPUs; median of {rounds} rounds in which the "
        f"engines take turns. The machine's load average was {load:.1f} before them: far above 1, other work would "
        "have made the figures larger than they are on a quiet machine.\n"
    )
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(before + BEGIN + text + END + rest.partition(END)[2])


if __name__ == "__main__":
    main(rounds_argument(10))
