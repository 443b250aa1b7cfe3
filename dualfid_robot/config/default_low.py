"""Which low simulator a task gets where the user names none."""

from __future__ import annotations

from typing import Any, cast

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.config.experiment import TaskSettings
from dualfid_robot.config.machine import CONFIG_DIR, DEFAULT_LOW, FALLBACK_LOW, pybullet_is_installed
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import parse_settings
from dualfid_robot.simulators.registry import engine_class


def default_low(task: DictConfig, user: UserFolder) -> tuple[str, str]:
    """The file of cfg/simulator that a task's own setting `low` names; else PyBullet where it is installed and takes
    the task's robot; else reduced MuJoCo.

    Args:
        task: the task's part of a composed configuration.
        user: the user's folder, where the task may be.

    Returns:
        Its name, and one line that says why it is not PyBullet, where the task does not want it so; else empty.

    Raises:
        ConfigError: the task's settings are wrong.
    """
    settings: TaskSettings = parse_settings(
        TaskSettings, cast(dict[str, Any], OmegaConf.to_container(task, resolve=True)), "task"
    )
    if settings.low:
        allowed = sorted(path.stem for path in (CONFIG_DIR / "simulator").glob("*.yaml"))
        if settings.low not in allowed:
            raise ConfigError(f"task.low={settings.low}: allowed are {allowed}")
        return settings.low, ""
    instead = f"simulator/low={FALLBACK_LOW} is used instead"
    if not pybullet_is_installed():
        why = f"{DEFAULT_LOW} is not installed (PyPI has no wheel of it for Python >= 3.12)"
        return FALLBACK_LOW, f"{why}: {instead}"
    robot = settings.load_robot(user)
    bodies = settings.make_task(robot, user).contact_bodies
    try:
        engine_class(DEFAULT_LOW).check_robot(robot, bodies)
    except ConfigError as error:
        return FALLBACK_LOW, f"{DEFAULT_LOW} does not take this task ({error}): {instead}"
    return DEFAULT_LOW, ""
