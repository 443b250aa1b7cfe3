"""The engines of a run: which files of cfg/simulator E_low and E_high are. Every entry point asks here.

A configuration is composed once. A side that nobody chose holds the option `default`. `choose_engines` puts engines
that suit the task and the machine in its place. E_low may have several engines, so `simulator.low` holds a mapping of
settings for each, by name. `simulator.high` holds the settings of its one engine.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from dualfid_robot.config.fits import apply_fits
from dualfid_robot.config.machine import (
    CONFIG_DIR,
    DEFAULT_HIGH,
    DEFAULT_HIGH_ON_GPU,
    OF_OTHER_ENGINE,
    OTHER_ENGINE,
    TWIN,
    TWINS,
    gpu_is_usable,
    pybullet_is_installed,
)
from dualfid_robot.config.user_folder import UserFolder, remember_config_dir
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import alternatives, require_mapping, require_number

logger = logging.getLogger(__name__)

DEFAULT = "default"
OPEN_GROUPS = ("task", "train", "simulator", "allocation")


def simulator_names() -> list[str]:
    """Names of the files of cfg/simulator."""
    return sorted(path.stem for path in (CONFIG_DIR / "simulator").glob("*.yaml"))


def register_groups() -> None:
    """Tell Hydra what cfg/ cannot say in files.

    - Each file of cfg/simulator, and `default`, is an option of `simulator/high` and of `simulator/low`. The latter
      option's settings stand under its own name, so that several can be chosen.
    - The options of `open` let the command line set what no YAML of a group names. The dataclasses that these groups
      are parsed into refuse what they do not know.
    """
    store = ConfigStore.instance()
    for name in (*simulator_names(), DEFAULT):
        file = [] if name == DEFAULT else [f"/simulator/{name}@_here_"]
        for side, package in (("high", None), ("low", f"simulator.low.{name}")):
            common = f"/simulator/common/{side}@_here_"
            node = {"defaults": [*file, common, "_self_"], "name": name}
            store.store(group=f"simulator/{side}", name=name, node=node, package=package)
    for group in OPEN_GROUPS:
        node_of_group = OmegaConf.create({})
        node_of_group._set_flag("struct", False)
        store.store(group="open", name=group, node=OmegaConf.create({group: node_of_group}), package="_global_")


@contextmanager
def hydra_apart() -> Iterator[None]:
    """Hydra over cfg/. The caller may itself be a Hydra application, whose own state survives."""
    register_groups()
    outer = GlobalHydra.instance().hydra
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(CONFIG_DIR), version_base="1.3"):
            yield
    finally:
        GlobalHydra.instance().hydra = outer


def compose_config(overrides: Sequence[str], config_name: str = "config", config_dir: str = "") -> DictConfig:
    """The configuration that an entry point would run with. It is a file of cfg/ with settings as on the command line,
    engines chosen.

    Hydra must be initialised, as it is in an entry point and in `hydra_apart`.

    Args:
        overrides: the settings.
        config_name: the file, without its suffix.
        config_dir: the user's folder of settings. Empty means none.

    Raises:
        ConfigError, HydraException: a setting is wrong.
    """
    cfg, choices = compose_with_choices(config_name, overrides)
    remember_config_dir(cfg, config_dir)
    return choose_engines(cfg, choices, overrides)


def compose_with_choices(config_name: str, overrides: Sequence[str]) -> tuple[DictConfig, dict[str, Any]]:
    """A file of cfg/ with settings as on the command line, and the option of each group. Engines are not chosen yet."""
    cfg = compose(config_name, list(overrides), return_hydra_config=True)
    choices = dict(cfg.hydra.runtime.choices)
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, choices


@functools.cache
def _file(name: str) -> DictConfig:
    """A file of cfg/simulator, with the values that a task has for it still to be filled in."""
    with hydra_apart():
        composed = cast(dict[str, Any], OmegaConf.to_container(compose(f"simulator/{name}").simulator))
    return OmegaConf.create(composed)  # unlike Hydra's, it takes further keys


def simulator_settings(name: str, task: Mapping[str, Any], key: str = "simulators") -> dict[str, Any]:
    """A file of cfg/simulator with the values that a task has for it, and its name.

    Args:
        name: the file, without its suffix.
        task: the task's settings, as in a run's configuration.
        key: how an error names the setting.

    Raises:
        ConfigError: there is no such file.
    """
    if name not in simulator_names():
        raise ConfigError(f"{key}={name}: allowed are {simulator_names()}")
    composed = OmegaConf.create({"task": dict(task), "simulator": _file(name)})
    return cast(dict[str, Any], OmegaConf.to_container(composed.simulator, resolve=True)) | {"name": name}


def choose_engines(cfg: DictConfig, choices: Mapping[str, Any], overrides: Sequence[str]) -> DictConfig:
    """A composed configuration with engines in the place of `default`.

    A configuration with a single `simulator` has it already, and gets its name. One without a group of simulators is
    left as it is.

    Args:
        cfg: the configuration. It is changed.
        choices: the option that was composed of each group.
        overrides: the settings of the command line.

    Raises:
        ConfigError: a side has no engine, an engine twice or settings of another engine; the task's settings are wrong.
    """
    if "simulator" not in choices and "simulator/high" not in choices:
        return cfg
    with open_dict(cfg):
        if "task" in cfg:  # play.py may do without one
            _take_class_values(cfg)
            apply_fits(cfg, sorted({key.split(".")[1] for key in _values_of_tasks()}), overrides)
        if "simulator" in choices:
            _check_is_mapping(cfg.simulator, "simulator")
            cfg.simulator.name = choices["simulator"]
            return cfg
        _check_sides(cfg.simulator, overrides)
        if cfg.simulator.high.name == DEFAULT:
            name = _default_high(cfg.get("sim_device", ""))
            cfg.simulator.high = OmegaConf.merge(_file(name), cfg.simulator.high, {"name": name})
        if DEFAULT in cfg.simulator.low:
            given, user = cfg.simulator.low.pop(DEFAULT), UserFolder(cfg.get("config_dir", ""))
            found = default_low(cfg.task, user, cfg.simulator.high.name)
            names = _announced(found, quiet=bool(cfg.get("test", False)))
            for name in names:
                of_engine = cfg.simulator.low.get(name, {})
                if "engine" in of_engine:
                    raise ConfigError(f"simulator/low: {name} is chosen twice; {DEFAULT} stands for it here")
                beside = OF_OTHER_ENGINE if name == OTHER_ENGINE and len(names) > 1 else {}
                cfg.simulator.low[name] = OmegaConf.merge(_file(name), given, beside, of_engine, {"name": name})
    _check_engines_of_low(cfg.simulator.low)
    _check_fitted(cfg.task)
    return cfg


def _take_class_values(cfg: DictConfig) -> None:
    """Put what another program's class has for files of cfg/simulator under `task.simulators`."""
    if "." not in str(cfg.task.get("name")):
        return
    from dualfid_robot.envs.foreign_task import described  # imports torch, as the job will

    container = cast(dict[str, Any], OmegaConf.to_container(cfg.task, resolve=True))
    cfg.task.simulators = described(container)["simulators"]


def _check_sides(simulator: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError where a group was written as a setting, or an engine was chosen twice."""
    for side in ("low", "high"):
        simulator.setdefault(side, {})
        _check_is_mapping(simulator[side], f"simulator.{side}")
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        chosen = override.value() if override.key_or_group == "simulator/low" else None
        if isinstance(chosen, list) and len(set(chosen)) < len(chosen):
            raise ConfigError(f"simulator/low={chosen}: names an engine twice")


def _check_is_mapping(value: object, key: str) -> None:
    if not isinstance(value, DictConfig):
        raise ConfigError(f"{key}={value}: did you mean {key.replace('.', '/')}={value}?")


def _check_engines_of_low(low: DictConfig) -> None:
    """Raise ConfigError where E_low has no engine, or a setting that belongs to none of its engines."""
    engines = [str(name) for name in low if isinstance(low[name], DictConfig) and "engine" in low[name]]
    if not engines:
        raise ConfigError(f"simulator/low=[]: at least one engine is expected; allowed are {simulator_names()}")
    for name in sorted(map(str, low.keys() - set(engines))):
        if name in simulator_names():
            raise ConfigError(
                f"simulator.low.{name}: E_low is {', '.join(engines)}; choose it with simulator/low={name}"
            )
        meant = " or ".join(f"simulator.low.{engine}.{name}" for engine in engines)
        raise ConfigError(f"simulator.low.{name}={low[name]}: no such setting; did you mean {meant}?")


def _check_fitted(task: DictConfig) -> None:
    """Raise ConfigError where a task has a value for a simulator that no file of cfg/simulator reads."""
    read = _values_of_tasks()
    for name, values in (task.get("simulators") or {}).items():
        if name not in simulator_names():
            raise ConfigError(f"task.simulators.{name!s}: no such engine; allowed are {simulator_names()}")
        require_mapping(f"task.simulators.{name!s}", values)
        for key in values:
            setting = f"simulators.{name!s}.{key!s}"
            if setting not in read:
                raise ConfigError(f"task.{setting}: no such setting; {alternatives(setting, read)}")


def _values_of_tasks() -> set[str]:
    """What the files of cfg/simulator read of a task: simulators.pybullet.friction …"""
    texts = [path.read_text("utf-8") for path in (CONFIG_DIR / "simulator").glob("**/*.yaml")]
    return {key for text in texts for key in re.findall(r"task\.(simulators\.\w+\.\w+)", text)}


def _default_high(sim_device: str) -> str:
    """MuJoCo Warp where the run shall use a GPU, else MuJoCo."""
    on_gpu = gpu_is_usable() if sim_device == "" else str(sim_device).startswith("cuda")
    return DEFAULT_HIGH_ON_GPU if on_gpu else DEFAULT_HIGH


def _announced(found: tuple[tuple[str, ...], str], quiet: bool) -> tuple[str, ...]:
    names, notice = found
    if notice and not quiet and int(os.environ.get("RANK", 0)) == 0:
        logger.warning(notice)
    return names


def default_low(task: DictConfig, user: UserFolder, high: str = DEFAULT_HIGH) -> tuple[tuple[str, ...], str]:
    """The engines of E_low: those that a task's own setting `low` names; else E_high's cheap twin and PyBullet.

    The twin is alone where PyBullet is not installed or does not take the task's robot.

    Args:
        task: the task's part of a composed configuration.
        user: the user's folder, where the task may be.
        high: the engine of E_high, a file of cfg/simulator.

    Returns:
        Files of cfg/simulator, and one line that says why PyBullet is missing, where the task does not want it so.

    Raises:
        ConfigError: the task's settings are wrong.
    """
    from dualfid_robot.config.experiment import TaskSettings  # imports torch, as the job will
    from dualfid_robot.envs.foreign_task import described
    from dualfid_robot.settings import parse_settings
    from dualfid_robot.simulators.registry import engine_class

    container = cast(dict[str, Any], OmegaConf.to_container(task, resolve=True))
    settings: TaskSettings = parse_settings(TaskSettings, described(container), "task")
    if settings.low != "":
        names = (settings.low,) if isinstance(settings.low, str) else settings.low
        if not names:
            raise ConfigError(f"task.low=[]: at least one engine is expected; allowed are {simulator_names()}")
        for name in names:
            if name not in simulator_names():
                raise ConfigError(f"task.low={name}: allowed are {simulator_names()}")
        if len(set(names)) < len(names):
            raise ConfigError(f"task.low={list(names)}: names an engine twice")
        return names, ""
    twin = TWINS.get(high, TWIN)
    instead = f"simulator/low={twin} is used alone"
    if not pybullet_is_installed():
        why = f"{OTHER_ENGINE} is not installed (PyPI has no wheel of it for Python >= 3.12)"
        return (twin,), f"{why}: {instead}"
    robot = settings.load_robot(user)
    bodies = settings.make_task(robot, user).contact_bodies
    try:
        engine_class(OTHER_ENGINE).check_robot(robot, bodies)
    except ConfigError as error:
        return (twin,), f"{OTHER_ENGINE} does not take this task ({error}): {instead}"
    return (twin, OTHER_ENGINE), ""


def resolve_shares(shares: Mapping[str, float | None]) -> dict[str, float]:
    """How much of E_low each of its engines gets, 1 in all. Those that say nothing share equally what others leave.

    Args:
        shares: of each engine, by name; None: it says nothing.

    Raises:
        ConfigError: a share is not in [0, 1], or they do not add up to 1.
    """
    for name, share in shares.items():
        if share is not None:
            require_number(f"simulator.low.{name}.share", share, 0.0, 1.0)
    given = math.fsum(share for share in shares.values() if share is not None)
    silent = sum(share is None for share in shares.values())
    adds_up = given < 1.0 if silent else math.isclose(given, 1.0, abs_tol=1e-9)
    if not adds_up:
        told = ", ".join(f"{name}={share}" for name, share in shares.items())
        raise ConfigError(f"simulator.low.….share: {told}: the shares must add up to 1")
    return {name: (1.0 - given) / silent if share is None else share for name, share in shares.items()}
