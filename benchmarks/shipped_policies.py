"""Make the policies that ship with the program from checkpoints, and the table of their returns.

    python benchmarks/shipped_policies.py CHECKPOINT…

Each checkpoint becomes assets/policies/<its task>: ONNX files with a dial between the base and the adapted policy,
checked against the checkpoint as every export is. docs/shipped_policies.md then lists all that ship, and whether they
reach what docs/tasks.md asks of a trained policy.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from dualfid_robot.config.machine import set_environment

set_environment()  # how torch's threads wait

from learning import FIGURES  # noqa: E402

from dualfid_robot.errors import ConfigError  # noqa: E402
from dualfid_robot.evaluate.evaluation import Evaluation  # noqa: E402
from dualfid_robot.export.launch import export, require_packages  # noqa: E402
from dualfid_robot.export.request import ExportRequest  # noqa: E402
from dualfid_robot.onboard.metadata import EvaluationRecord  # noqa: E402
from dualfid_robot.onboard.runtime import ExportedPolicy  # noqa: E402
from dualfid_robot.play.choice import POLICIES, shipped_policies  # noqa: E402
from dualfid_robot.play.player import Player  # noqa: E402
from dualfid_robot.play.simulated_robot import SimulatedRobot  # noqa: E402
from dualfid_robot.robots.model import RobotModel  # noqa: E402
from dualfid_robot.runs.checkpoint import load_checkpoint, resolve_checkpoint  # noqa: E402

PAGE = Path(__file__).parents[1] / "docs" / "shipped_policies.md"
EPISODES = 16  # at most, in which a figure that is no return is measured

_HEAD = """# Policies that ship with the program

`python play.py task=Ant` plays one. They live in `assets/policies`, one folder for each task. `policy=shipped` plays
them even where you have runs of your own.

They are exports with a dial: at 0 the base policy acts, at 1 the adapted one. Returns are means over episodes of the
adapted policy in the run's E_high, with the 95% interval. Targets are those of
[the tasks](tasks.md#what-they-reach). The returns show what a policy does, and not how good a method is.

Anymal falls in one of seven episodes of 50 s. AnymalTerrain's robots were at level 3.5 in E_low when training was
stopped. They were at 0.8 in E_high, where most of them had come late. The policy falls in 3 of 16 episodes.

`python benchmarks/shipped_policies.py CHECKPOINT…` made them and this table.

| task | return | episodes | target | samples, million | measured cost, s | size, kB |
|---|---|---|---|---|---|---|
"""


def main() -> None:
    """Export the checkpoints, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoints", nargs="*", type=Path)
    parser.add_argument("--episodes", type=int, default=64, help="of the evaluation, and starts that ship")
    arguments = parser.parse_args()
    logging.basicConfig(format="%(levelname)s: %(message)s")
    require_packages()
    request = ExportRequest(("onnx",), "dial", arguments.episodes)
    for checkpoint in arguments.checkpoints:
        path = resolve_checkpoint(checkpoint)
        task = load_checkpoint(path)["task"]
        try:
            lines = export(path, request, POLICIES / task)
        except ConfigError as error:
            raise SystemExit(f"error: {error}") from error
        print("\n".join([f"{task}:", *lines]))
    PAGE.write_text(_HEAD + "".join(f"{row(task)}\n" for task in shipped_policies()))


def row(task: str) -> str:
    """A task's row of the table."""
    policy = ExportedPolicy(POLICIES / task)
    training = policy.metadata.training
    evaluation = record(policy)
    size = sum(path.stat().st_size for path in policy.folder.iterdir()) / 1000
    return (
        f"| {task} | {evaluation.mean:.4g} ({evaluation.low:.4g} to {evaluation.high:.4g}) | {len(evaluation.returns)} "
        f"| {target(task, policy)} | {training.samples / 1e6:.3g} | {training.cost_seconds:.0f} | {size:.0f} |"
    )


def target(task: str, policy: ExportedPolicy) -> str:
    """What is asked of a task's policy, and whether this one does it."""
    figure = FIGURES[task]
    if figure.when == "training":  # an export does not know
        return str(figure)
    if figure.name == "return":
        return f"{figure}: {'reached' if figure.reached(record(policy).mean) else 'missed'}"
    value = figure.of(played(policy), {}, "high")
    return f"{figure}: {'reached' if figure.reached(value) else 'missed'} with {value:.3g}"


def record(policy: ExportedPolicy) -> EvaluationRecord:
    """What the exporter measured in the run's E_high."""
    return next(iter(policy.metadata.evaluations.values()))


def played(policy: ExportedPolicy) -> Evaluation:
    """Episodes from the first of the exporter's starts, in the engine of its evaluation."""
    measured = record(policy)
    model = RobotModel(policy.folder / policy.metadata.robot.file, policy.metadata.robot.feet)
    robot = SimulatedRobot.build(policy.metadata, model, measured.simulator, min(EPISODES, len(measured.returns)))
    try:
        return Player(policy, robot).play()
    finally:
        robot.close()


if __name__ == "__main__":
    main()
