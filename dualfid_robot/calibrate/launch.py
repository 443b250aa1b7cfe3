"""calibrate.py: fit a task's low simulator to its high one, and write down what was found."""

from __future__ import annotations

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.experiment import TaskSettings, plain
from dualfid_robot.config.fits import read_fits
from dualfid_robot.config.progress import Progress
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.atomic import write_text
from dualfid_robot.settings import parse_settings
from dualfid_robot.simulators.calibration import calibrate, collect, relative_cost, residual

_HEADER = "# Settings of low simulators, fitted to this task's high one; written by calibrate.py.\n"


def launch_calibration(cfg: DictConfig) -> None:
    """Fit and print the settings and their errors, and write them where they beat those in force. With `search=False`,
    only measure.

    Raises:
        ConfigError: the task's settings are wrong, or there is nothing to fit in the low simulator.
    """
    settings, user = plain(cfg), UserFolder(cfg.get("config_dir", ""))
    task: TaskSettings = parse_settings(TaskSettings, settings["task"], "task")
    high, chosen = settings["simulator"]["high"], list(settings["simulator"]["low"].values())
    if len(chosen) > 1:
        raise ConfigError(f"simulator/low={[low['name'] for low in chosen]}: one engine is fitted at a time")
    low = chosen[0]
    engine = low["name"]
    robot = task.load_robot(user)

    # What the high simulator does, and how near the low one is as it stands.
    with Progress(f"{task.name}'s motion in {high['name']}"):
        windows = collect(robot, high, task.sim.dt, max_windows=settings["windows"], seed=settings["seed"])
    if not len(windows):
        raise ConfigError(f"task={task.name}: in {high['name']} something besides the feet touches in every window")
    print(f"{len(windows)} windows of {task.name}'s motion in {high['name']}", flush=True)
    if not settings["search"]:
        cost = relative_cost(windows, robot, high, low, task.sim.dt)
        print(_table({"as configured": residual(windows, robot, low, task.sim.dt)}, cost))
        return

    # The fit.
    if engine not in settings["fit"]:
        raise ConfigError(f"simulator/low={engine}: nothing to fit; fit has {sorted(settings['fit'])}")
    with Progress("calibration") as progress:
        fit = calibrate(
            windows,
            robot,
            high,
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
            f"not written: {fit.after['all']:.4f} is no smaller than {fit.before['all']:.4f}, that of what is in force"
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
    lines += [f"| relative error after periods | {' | '.join(residuals)} |", "|---|" + "---|" * len(residuals)]
    for row in next(iter(residuals.values())):
        lines.append(f"| {row} | {' | '.join(f'{column[row]:.3f}' for column in residuals.values())} |")
    return "\n".join(lines)
