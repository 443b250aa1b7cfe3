"""Fit a task's low simulator to its high one: `python calibrate.py task=Ant`. Writes cfg/calibration/<task>.yaml."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.errors import ConfigError
from dualfid_robot.runners.entry import CONFIG_DIR, ROOT, run

if TYPE_CHECKING:
    from dualfid_robot.simulators.calibration import Fit

_HEADER = "# Settings of low simulators, fitted to this task's high one; written by calibrate.py.\n"


def main(cfg: DictConfig) -> None:
    from dualfid_robot.robots.model import RobotModel
    from dualfid_robot.simulators.calibration import calibrate, collect

    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    task, low, high = settings["task"], settings["simulator"]["low"], settings["simulator"]["high"]
    name = low["engine"]
    if name not in settings["fit"]:
        raise ConfigError(f"simulator.low.engine={name}: nothing to fit; fit has {sorted(settings['fit'])}")
    robot = RobotModel(ROOT / "assets" / task["asset"]["assetFileName"], tuple(task["asset"]["feet"]))
    control_dt = task["sim"]["dt"]
    windows = collect(robot, high, control_dt, max_windows=settings["windows"], seed=settings["seed"])
    print(f"{len(windows)} windows of {task['name']}'s motion in {high['engine']}", flush=True)
    bounds = {key: (float(least), float(most)) for key, (least, most) in settings["fit"][name].items()}
    fit = calibrate(
        windows,
        robot,
        high,
        low,
        control_dt,
        bounds,
        settings["choose"].get(name, {}),
        settings["cost_bound"],
        report=lambda line: print(line, flush=True),
    )
    path = CONFIG_DIR / "calibration" / f"{task['name']}.yaml"
    known = OmegaConf.load(path) if path.is_file() else OmegaConf.create()
    known[name] = fit.values
    path.write_text(_HEADER + OmegaConf.to_yaml(known))
    print(f"\n{_table(fit)}\n\nwritten to {path.relative_to(ROOT)}")


def _table(fit: Fit) -> str:
    """The fit as Markdown: settings, then residuals before and after."""
    lines = ["| setting | value |", "|---|---|"]
    lines += [f"| {name} | {value:g} |" for name, value in fit.values.items()]
    lines += ["", f"Cost of a step: {fit.cost:.2f} of the high simulator's.", ""]
    lines += ["| relative error / control periods | defaults | fitted |", "|---|---|---|"]
    lines += [f"| {name} | {fit.before[name]:.3f} | {fit.after[name]:.3f} |" for name in fit.after]
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, "calibrate")
