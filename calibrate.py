"""Fit a task's low simulator to its high one: `python calibrate.py task=Ant`. Writes cfg/calibration/<task>.yaml."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.command_line import run
from dualfid_robot.config.machine import CONFIG_DIR, ROOT
from dualfid_robot.errors import ConfigError

_HEADER = "# Settings of low simulators, fitted to this task's high one; written by calibrate.py.\n"


def main(cfg: DictConfig) -> None:
    from dualfid_robot.robots.model import RobotModel
    from dualfid_robot.simulators.calibration import calibrate, collect, relative_cost, residual

    settings = cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=True))
    task, low, high = settings["task"], settings["simulator"]["low"], settings["simulator"]["high"]
    name = low["engine"]
    robot = RobotModel(ROOT / "assets" / task["asset"]["assetFileName"], tuple(task["asset"]["feet"]))
    control_dt = task["sim"]["dt"]
    windows = collect(robot, high, control_dt, max_windows=settings["windows"], seed=settings["seed"])
    print(f"{len(windows)} windows of {task['name']}'s motion in {high['engine']}", flush=True)
    if not settings["search"]:
        cost = relative_cost(windows, robot, high, low, control_dt)
        print(_table({"as configured": residual(windows, robot, low, control_dt)}, cost))
        return
    if name not in settings["fit"]:
        raise ConfigError(f"simulator.low.engine={name}: nothing to fit; fit has {sorted(settings['fit'])}")
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
    print("\n| setting | value |\n|---|---|")
    print("\n".join(f"| {key} | {value:g} |" for key, value in fit.values.items()))
    print(f"\n{_table({'defaults': fit.before, 'fitted': fit.after}, fit.cost)}\n\nwritten to {path.relative_to(ROOT)}")


def _table(residuals: dict[str, dict[str, float]], cost: float) -> str:
    """Residuals as Markdown: a row per quantity and horizon."""
    lines = [f"Cost of a step: {cost:.2f} of the high simulator's.", ""]
    lines += [f"| relative error after periods | {' | '.join(residuals)} |", "|---|" + "---|" * len(residuals)]
    for row in next(iter(residuals.values())):
        lines.append(f"| {row} | {' | '.join(f'{column[row]:.3f}' for column in residuals.values())} |")
    return "\n".join(lines)


if __name__ == "__main__":
    run(main, "calibrate")
