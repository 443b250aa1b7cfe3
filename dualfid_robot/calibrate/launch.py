"""calibrate.py: fit a task's low simulator to its high one, and write down what was found."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.atomic import require_writable, write_text
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import TaskSettings, plain
from dualfid_robot.config.fits import read_fits
from dualfid_robot.config.progress import Progress
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import counted, parse_settings
from dualfid_robot.simulators.calibration import Windows, calibrate, collect, relative_cost, residual

_HEADER = "# Settings of low simulators, fitted to this task's high one; written by calibrate.py.\n"


def launch_calibration(cfg: DictConfig) -> None:
    """Fit and print the settings and their errors, and write them where they beat those in force. With `search=False`,
    only measure. Of several low engines each is fitted by itself, but for those that have nothing to fit.

    Raises:
        ConfigError: the task's settings are wrong, or there is nothing to fit in the low simulator.
    """
    settings, user = plain(cfg), UserFolder(cfg.get("config_dir", ""))
    task: TaskSettings = parse_settings(TaskSettings, settings["task"], "task")
    high, low = settings["simulator"]["high"], settings["simulator"]["low"]
    engines = [engine for name, engine in low.items() if not settings["search"] or name in settings["fit"]]
    if not engines:
        raise ConfigError(f"simulator/low={','.join(low)}: nothing to fit; fit has {sorted(settings['fit'])}")
    if settings["search"]:
        require_writable(user.calibration(task.name).parent)
    robot = task.load_robot(user)

    # What the high simulator does, and how near each low one is as it stands, or can be.
    with Progress(f"{task.name}'s motion in {high['name']}"):
        windows = collect(robot, high, task.sim.dt, max_windows=settings["windows"], seed=settings["seed"])
    if not len(windows):
        raise ConfigError(f"task={task.name}: in {high['name']} more than the feet touches something in every window")
    print(f"{len(windows)} windows of {task.name}'s motion in {high['name']}", flush=True)
    for engine in engines:
        print(f"\n{engine['name']}:", flush=True)
        if settings["search"]:
            _fit(settings, task, robot, user, windows, engine)
        else:
            with Progress("measurement"):
                cost = relative_cost(windows, robot, high, engine, task.sim.dt)
                errors = residual(windows, robot, engine, task.sim.dt)
            print(_table({"as configured": errors}, cost))


def _fit(
    settings: Mapping[str, Any],
    task: TaskSettings,
    robot: RobotModel,
    user: UserFolder,
    windows: Windows,
    low: Mapping[str, Any],
) -> None:
    """Fit one engine of E_low, show what that is worth, and write it where it is better than what is in force."""
    engine = low["name"]
    with Progress("calibration") as progress:
        fit = calibrate(
            windows,
            robot,
            settings["simulator"]["high"],
            low,
            task.sim.dt,
            {key: (float(least), float(most)) for key, (least, most) in settings["fit"][engine].items()},
            settings["choose"].get(engine, {}),
            settings["cost_bound"],
            in_force=simulator_settings(engine, settings["task"]),
            report=lambda line: print(line, flush=True),
            say=progress.say,
        )

    # What it is worth, as tables.
    print("\n| setting | value |\n|---|---|")
    print("\n".join(f"| {key} | {value:g} |" for key, value in fit.values.items()))
    print(f"\n{_table({'in force': fit.before, 'fitted': fit.after}, fit.cost)}\n")
    if not fit.is_better:
        print(
            f"not written: the error {fit.after['all']:.4f} is no smaller than {fit.before['all']:.4f},"
            " that of the settings in force"
        )
        return

    # Its result, beside what was fitted for the task's other engines.
    path = user.calibration(task.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, _HEADER + OmegaConf.to_yaml(OmegaConf.create(read_fits(path) | {engine: fit.values})))
    print(f"written to {path}; train.py applies it to task={task.name}")


def _table(residuals: dict[str, dict[str, float]], cost: float) -> str:
    """Residuals as Markdown: a row per quantity and horizon."""
    lines = [f"Cost of a step: {cost:.2f} of the high simulator's.", ""]
    lines += [f"| relative error | {' | '.join(residuals)} |", "|---|" + "---|" * len(residuals)]
    for row in next(iter(residuals.values())):
        quantity, _, periods = row.partition("/")
        after = f", {counted(int(periods), 'period')}" if periods else ""
        lines.append(f"| {quantity}{after} | {' | '.join(f'{column[row]:.3f}' for column in residuals.values())} |")
    return "\n".join(lines)
