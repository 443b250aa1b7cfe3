"""Every setting stands in a file of cfg/, and every setting there is one that the program reads."""

from __future__ import annotations

import dataclasses
import re
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from dualfid_robot.algorithms.allocation import AllocationConfig
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.algorithms.rules import RULES
from dualfid_robot.config.engines import compose_config, hydra_apart, simulator_names, simulator_settings
from dualfid_robot.config.experiment import Experiment, NetworkConfig, RunConfig, TaskSettings
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.envs.randomization import RandomizationConfig
from dualfid_robot.envs.task import TaskConfig
from dualfid_robot.robots.changes import Changes
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.runs.curves import WandbSettings
from dualfid_robot.simulators.registry import engine_class
from dualfid_robot.studies.plan_file import Plan, Series

PACKAGE = CONFIG_DIR.parent
COMMANDS = ("config", "evaluate", "check_task", "calibrate", "export", "import_robot", "play", "transfer", "study")
SECTIONS = {"task", "train", "simulator", "allocation", "study"}  # groups, which have files of their own


def composed(*overrides: str) -> dict[str, Any]:
    with hydra_apart():
        return OmegaConf.to_container(compose_config(overrides), resolve=True)  # type: ignore[return-value]


def file(name: str) -> dict[str, Any]:
    return OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / f"{name}.yaml"))  # type: ignore[return-value]


def options(group: str) -> list[str]:
    return sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))


def settings_of(cls: type) -> set[str]:
    return {field.name for field in dataclasses.fields(cls) if field.init}


def assert_same(settings: Mapping[str, Any], cls: type, where: str) -> None:
    """Keys and fields are the same set, in sections within it, too."""
    assert set(settings) == settings_of(cls), where
    types = typing.get_type_hints(cls)
    for key, value in settings.items():
        if dataclasses.is_dataclass(types[key]) and isinstance(value, Mapping):
            assert_same(value, typing.cast(type, types[key]), f"{where}.{key}")


def test_training() -> None:
    params = file("train/base")["params"]
    assert set(params) == {"network", "config"}
    assert_same(params["network"], NetworkConfig, "network")
    assert not settings_of(RunConfig) & settings_of(PPOConfig)
    assert set(params["config"]) == settings_of(RunConfig) | settings_of(PPOConfig)


@pytest.mark.parametrize("task", [name for name in options("task") if not name.startswith("isaacgym.")])
def test_tasks(task: str) -> None:
    """The task's own settings are those of its class; its training adds none to the common ones and repeats none."""
    settings = composed(f"task={task}")
    env, of_task = settings["task"].pop("env"), settings_of(TaskSettings) - {"env"}
    assert set(settings["task"]) == of_task
    assert_same(settings["task"]["randomization"], RandomizationConfig, task)
    assert_same(env, type(Experiment(OmegaConf.create(composed(f"task={task}"))).make_task()).Config, f"{task}.env")
    assert _leaves(settings["train"]).keys() == _leaves(file("train/base")).keys()
    own, common = _leaves(file(f"train/{task}PPO")), _leaves(file("train/base"))
    assert not [key for key, value in own.items() if key in common and common[key] == value]


def _leaves(settings: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found = {}
    for key, value in settings.items():
        if key != "defaults":
            found |= _leaves(value, f"{before}{key}.") if isinstance(value, Mapping) else {f"{before}{key}": value}
    return found


@pytest.mark.parametrize("allocation", [name for name in options("allocation") if name != "guards"])
def test_allocations(allocation: str) -> None:
    settings = composed(f"allocation={allocation}")["allocation"]
    assert set(settings) == settings_of(AllocationConfig)
    rule = RULES[settings["rule"].pop("name")]
    assert set(settings["rule"]) == settings_of(typing.cast(type, rule))


def test_every_rule_has_an_allocation() -> None:
    names = [name for name in options("allocation") if name != "guards"]
    assert {composed(f"allocation={name}")["allocation"]["rule"]["name"] for name in names} == set(RULES)


@pytest.mark.parametrize("simulator", simulator_names())
def test_simulators(simulator: str) -> None:
    settings = simulator_settings(simulator, {})
    engine = engine_class(settings.pop("engine"))
    assert settings.pop("name") == simulator
    assert set(settings.pop("changes")) == settings_of(Changes)
    assert set(settings) == settings_of(typing.cast(type, engine.Config))
    if not simulator.endswith("_reduced"):  # an engine that is built without a file is the file's
        assert engine.Config(**settings) == engine.Config()


def test_what_every_task_has_is_what_a_task_without_a_file_has() -> None:
    env = file("task/common/base")["env"]
    config = TaskConfig(env["numEnvs"], env["episodeLength"])
    assert dataclasses.asdict(config) == env


def test_imports() -> None:
    assert set(file("import_robot")) - {"defaults", "source", "out"} == settings_of(ImportOptions)


def test_plans_have_no_unknown_setting() -> None:
    for name in options("study"):
        keys = set(file(f"study/{name}")) - {"defaults"}
        assert keys <= settings_of(Plan) or keys == settings_of(Series), name


def _source() -> str:
    return "\n".join(path.read_text() for path in sorted(PACKAGE.rglob("*.py")) if "isaacgym" not in path.parts)


def test_every_setting_of_a_command_is_read() -> None:
    """As `cfg.key`, or by its name in quotes or as a field where several are read alike."""
    source = _source()
    fields = settings_of(ImportOptions) | {f"wandb_{name}" for name in settings_of(WandbSettings)}
    for command in COMMANDS:
        for key in set(file(command)) - {"defaults"}:
            read = re.search(rf"\bcfg\.{key}\b|\"{key}\"", source) or key in fields
            assert read, f"cfg/{command}.yaml: {key}"


def test_every_setting_that_a_command_reads_stands_in_its_file() -> None:
    known = (
        SECTIONS | {key for command in COMMANDS for key in file(command)} | {"config_dir", "hydra", "job", "overrides"}
    )
    read = set(re.findall(r"\bcfg\.([a-z_]+)\b(?!\()", _source()))
    assert read - known == set()


def test_every_setting_has_a_line_that_explains_it() -> None:
    """What the help prints; the figures of a task, of a plan and of its calibration speak for themselves."""
    for name in (*COMMANDS, "train/base", "task/common/options", "task/common/base", "allocation/guards"):
        assert not _unexplained(CONFIG_DIR / f"{name}.yaml"), name


def _unexplained(path: Path) -> list[str]:
    from dualfid_robot.config.help import explained_settings

    return [key for key, _, comment in explained_settings(path) if not comment]
