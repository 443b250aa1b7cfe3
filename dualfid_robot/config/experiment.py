"""A resolved configuration becomes typed settings, and these become pools and policies."""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import torch
from omegaconf import DictConfig, OmegaConf

from dualfid_robot.algorithms.allocation import AllocationConfig
from dualfid_robot.algorithms.ppo_config import PPOConfig
from dualfid_robot.config.engines import resolve_shares
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.user_folder import UserFolder
from dualfid_robot.config.values import check_name, check_seed, find_device, settings_of_side
from dualfid_robot.envs.foreign_task import ForeignTask, described, foreign_task
from dualfid_robot.envs.pool import EnvironmentPool
from dualfid_robot.envs.randomization import Randomization, RandomizationConfig
from dualfid_robot.envs.registry import make_task
from dualfid_robot.envs.task import Task
from dualfid_robot.errors import ConfigError, KeysError
from dualfid_robot.policies.actor_critic import AdapterKind, DualActorCritic
from dualfid_robot.robots.changes import parse_changes
from dualfid_robot.robots.model import RobotModel
from dualfid_robot.settings import parse_settings, require, require_integer, require_mapping, require_number
from dualfid_robot.simulators.registry import changed_robot, engine_class, engine_config, make_simulator

logger = logging.getLogger(__name__)

MOST_REWARD_FACTOR = 1e3
MOST_THREADS = 1024

_TOP_LEVEL = {str(key) for key in OmegaConf.load(CONFIG_DIR / "config.yaml")} - {"defaults"} | {
    "task",
    "train",
    "simulator",
    "allocation",
    *("config_dir", "overrides"),  # set by the command line
}


@dataclass(frozen=True)
class MLPConfig:
    """Hidden layers of actor and critic each."""

    units: tuple[int, ...]
    activation: Literal["elu", "tanh", "relu"]

    def __post_init__(self) -> None:
        if not self.units or min(self.units) < 1:
            raise ConfigError(f"units={list(self.units)}: a list of positive widths is expected")


@dataclass(frozen=True)
class AdapterConfig:
    """What the policy of E_high has besides the base policy's weights."""

    kind: AdapterKind
    rank: int
    alpha: float

    def __post_init__(self) -> None:
        require_integer("rank", self.rank, 1)
        require_number("alpha", self.alpha, 0.0, 1e3)


@dataclass(frozen=True)
class RunConfig:
    """Length of a run and when it is saved, in iterations, under rl_games' names."""

    name: str
    max_epochs: int
    save_frequency: int
    save_best_after: int

    def __post_init__(self) -> None:
        check_name("name", self.name)
        for key in ("max_epochs", "save_frequency"):
            require_integer(key, getattr(self, key), 1)


@dataclass(frozen=True)
class NetworkConfig:
    """Actor and critic."""

    separate: bool
    mlp: MLPConfig
    adapter: AdapterConfig
    sigma_init: float

    def __post_init__(self) -> None:
        require_number("sigma_init", self.sigma_init, -10.0, 10.0)


@dataclass(frozen=True)
class AssetConfig:
    """The robot's file in assets/, and the bodies that keep their contacts at reduced fidelity."""

    assetFileName: str
    feet: tuple[str, ...]


@dataclass(frozen=True)
class SimConfig:
    """dt: control period, s."""

    dt: float

    def __post_init__(self) -> None:
        require_number("dt", self.dt, 0.0, 1.0, open_low=True)


@dataclass(frozen=True)
class TaskSettings:
    """A task's YAML. cfg/task/common/base.yaml says what each setting is; those under `env` are the task's own."""

    name: str
    env: dict[str, Any]
    asset: AssetConfig
    sim: SimConfig
    low: str | tuple[str, ...]
    simulators: dict[str, Any]
    randomize: bool
    randomization: RandomizationConfig

    def load_robot(self, user: UserFolder) -> RobotModel:
        """The task's robot.

        Args:
            user: the folder where files of the user's own are.
        """
        if foreign := foreign_task(self.name):
            return foreign.load_robot({"env": self.env})
        return RobotModel(user.asset(self.asset.assetFileName), self.asset.feet)

    def make_task(self, robot: RobotModel, user: UserFolder, device: torch.device | str = "cpu") -> Task:
        """The task, with its constants on a device."""
        return make_task(self.name, self.env, robot, self.sim.dt, device, user.task_folders)


@dataclass(frozen=True)
class TrainSettings:
    """A training YAML's `params`."""

    network: NetworkConfig
    config: dict[str, Any]


class Experiment:
    """Everything that a configuration describes, checked before anything runs.

    Attributes:
        settings: the resolved configuration as plain values, with every default filled in.
        num_envs: N, environments of both simulators together.
        seed: seed of the run (a random one where -1 was asked for).
        task, network, ppo, run: typed settings.
        user: the user's folder of settings and tasks.
        robot: the task's robot.
        low_engines: settings of E_low's engines, each with its share of E_low. The shares add up to 1.
        high_engine: settings of E_high.
        max_cost: bound on the measured cost, s, or None.
        low_reward_factor: factor on the reward of E_low.
        learner_price: of a second of everything but the engines.
        sim_device: device of every engine that can use it. An engine that cannot runs on the CPU as E_low, and is
            refused as E_high.
        rl_device: device of the policy and the learner.
        threads: threads that share the learner's work on a CPU; 0 for as many as the process may use.
    """

    def __init__(self, cfg: DictConfig) -> None:
        """Check a configuration.

        Raises:
            ConfigError: names the key, the value and what is allowed.
        """
        settings = OmegaConf.to_container(cfg, resolve=True)
        assert isinstance(settings, dict)
        self.settings: dict[str, Any] = {str(key): value for key, value in settings.items()}
        self._fill_defaults()
        self.sim_device, self.rl_device = (find_device(key, self.settings[key]) for key in ("sim_device", "rl_device"))
        engine_class(self.high_engine.get("engine")).check_device(self.sim_device)
        self.threads = require_integer("threads", self.settings.get("threads", 0), 0, MOST_THREADS)
        unknown = sorted(self.settings.keys() - _TOP_LEVEL)
        if unknown:
            raise KeysError(f"{unknown[0]}: no such setting; allowed are {sorted(_TOP_LEVEL)}")
        self.task: TaskSettings = parse_settings(TaskSettings, self.settings["task"], "task")
        other = sorted(self.settings["train"].keys() - {"params"})
        if other:
            raise KeysError(f"train.{other[0]}: no such setting; allowed are ['params']")
        train: TrainSettings = parse_settings(TrainSettings, self.settings["train"]["params"], "train.params")
        self.network = train.network
        where, run_keys = "train.params.config", {field.name for field in fields(RunConfig)}
        of_run = {key: value for key, value in train.config.items() if key in run_keys}
        of_ppo = {key: value for key, value in train.config.items() if key not in run_keys}
        self.run: RunConfig = parse_settings(RunConfig, of_run, where)
        self.ppo: PPOConfig = parse_settings(PPOConfig, of_ppo, where)
        self.user = UserFolder(self.settings.get("config_dir", ""))
        self.robot = self.task.load_robot(self.user)
        self._check_engines()

    def _fill_defaults(self) -> None:
        settings = self.settings
        settings["task"] = described(settings["task"])
        for section in ("task.env", "train.params.config", "simulator.low", "simulator.high"):
            _check_section(settings, section)
        task, config = settings["task"], settings["train"]["params"]["config"]
        if not settings["sim_device"]:
            settings["sim_device"] = _default_device(
                engine_class(settings["simulator"]["high"].get("engine")).DEVICE_TYPES
            )
        settings["rl_device"] = settings["rl_device"] or _default_device(("cpu", "cuda"))
        self.num_envs = _override(settings, "num_envs", task["env"], "task.env.numEnvs")
        _override(settings, "max_iterations", config, "train.params.config.max_epochs")
        check_seed("seed", settings["seed"], least=-1)
        self.seed: int = settings["seed"]
        if self.seed == -1:
            self.seed = settings["seed"] = random.SystemRandom().randrange(2**31)
        cost = settings["max_cost"]
        self.max_cost = None if cost == "" else require_number("max_cost", cost, 0.0, math.inf, open_low=True)
        factor = settings.setdefault("low_reward_factor", 1.0)
        self.low_reward_factor = require_number("low_reward_factor", factor, -MOST_REWARD_FACTOR, MOST_REWARD_FACTOR)
        require(factor != 0.0, "low_reward_factor", factor, "another number than 0")
        price = settings.setdefault("learner_price", 1.0)
        self.learner_price = require_number("learner_price", price, 0.0, math.inf)
        self._fill_simulators()

    def _fill_simulators(self) -> None:
        """Put E_low's engines under their names, with a share each, and note what is changed of every engine's robot.

        With `+gap=none`, E_low's engine stands for E_high's and has its name.
        """
        simulators = self.settings["simulator"]
        low = [settings_of_side("low") | engine for engine in simulators["low"].values()]
        simulators["high"] = settings_of_side("high") | simulators["high"]
        names = [engine["name"] for engine in low]
        for name in names:
            allowed = "a text that no other engine of E_low has"
            require(isinstance(name, str) and names.count(name) == 1, "simulator.low.….name", name, allowed)
        simulators["low"] = {engine["name"]: engine for engine in low}
        for where, simulator in self.engines.items():
            simulator["changes"] = parse_changes(simulator.get("changes", {}), f"{where}.changes").factors
            require_number(f"{where}.price", simulator["price"], 0.0, math.inf)
        shares = resolve_shares({name: engine["share"] for name, engine in simulators["low"].items()})
        for name in shares:
            require(shares[name] > 0.0, f"simulator.low.{name}.share", 0, "more than 0, or it never has an environment")
        self.low_engines = tuple(engine | {"share": shares[name]} for name, engine in simulators["low"].items())
        self.high_engine: dict[str, Any] = simulators["high"]

    @property
    def relative_price(self) -> float:
        """The price of a second of E_high over that of the dearest other, of E_low or the learner."""
        high = float(self.high_engine["price"])
        others = max(self.learner_price, *(float(engine["price"]) for engine in self.low_engines))
        if high == others:
            return 1.0
        return high / others if others > 0.0 else math.inf

    @property
    def allocation(self) -> AllocationConfig:
        """Settings of the allocation."""
        allocation: AllocationConfig = parse_settings(AllocationConfig, self.settings["allocation"], "allocation")
        return allocation

    @property
    def engines(self) -> dict[str, dict[str, Any]]:
        """Settings of every engine, by the name of their section: simulator.low.<name> …, simulator.high."""
        simulators = self.settings["simulator"]
        low = {f"simulator.low.{name}": engine for name, engine in simulators["low"].items()}
        return low | {"simulator.high": simulators["high"]}

    def _check_engines(self) -> None:
        """Raise ConfigError where an engine lacks a setting, or the robot lacks what an engine has to change of it."""
        for where, simulator in self.engines.items():
            engine_config(simulator, where)
            try:
                changed_robot(simulator, self.robot)
            except ConfigError as error:
                raise ConfigError(f"{where}.{error}") from error

    @property
    def run_name(self) -> str:
        """Name of the run's folder without its date."""
        name = self.settings["experiment"]
        if not isinstance(name, str) and type(name) is not int:
            raise ConfigError(f"experiment={name}: a text is expected")
        return str(name) or self.run.name

    def make_task(self, device: torch.device | str = "cpu") -> Task:
        """The task, with its constants on a device."""
        return self.task.make_task(self.robot, self.user, device)

    def make_pool(
        self, simulator: Mapping[str, Any], num_envs: int, seed: int, reward_factor: float = 1.0
    ) -> EnvironmentPool:
        """A pool of `num_envs` environments in one engine. It is on `sim_device` where the engine can use that, else on
        the CPU.

        Only the engine's robot is changed by `simulator["changes"]`. The task keeps the unchanged one, with the same
        limits and scales in both simulators.

        Args:
            simulator: settings of the engine.
            num_envs: environments.
            seed: of all that the pool draws.
            reward_factor: factor on the task's reward; `low_reward_factor` for E_low.
        """
        cls = engine_class(simulator.get("engine"))
        device = self.sim_device if self.sim_device.type in cls.DEVICE_TYPES else torch.device("cpu")
        task = self.make_task(device)
        if isinstance(task, ForeignTask):
            if self.task.randomize:
                task.refuse("task.randomize=True")
            return task.make_pool(simulator, num_envs, seed, reward_factor)
        randomization = None
        if self.task.randomize:
            robot = changed_robot(simulator, self.robot)
            randomization = Randomization(self.task.randomization, task, cls, num_envs, robot)
            logger.info("%s: randomised in every episode: %s", simulator["name"], self.task.randomization)
        engine = make_simulator(simulator, self.robot, num_envs, self.task.sim.dt, task.contact_bodies, device)
        pin_memory = device.type == "cpu" and self.rl_device.type == "cuda"
        return EnvironmentPool(engine, task, seed, pin_memory, randomization, reward_factor)

    def make_policy(self) -> DualActorCritic:
        """A policy with initial weights drawn from the run's seed."""
        task = self.make_task()
        return DualActorCritic(
            task.num_observations,
            task.num_actions,
            num_privileged=task.num_privileged,
            actor_hidden=self.network.mlp.units,
            critic_hidden=self.network.mlp.units if self.network.separate else None,
            activation=self.network.mlp.activation,
            rank=self.network.adapter.rank,
            alpha=self.network.adapter.alpha,
            init_log_std=self.network.sigma_init,
            adapter=self.network.adapter.kind,
            generator=torch.Generator().manual_seed(self.seed),
        )

    def save_path(self, folder: Path) -> Path:
        """Where the best policy of a run goes."""
        return folder / "nn" / f"{self.run.name}.pth"


def _check_section(settings: dict[str, Any], section: str) -> None:
    """Raise ConfigError where a section, or one that it is in, is absent or something else than a mapping."""
    value: Any = settings
    names = section.split(".")
    for depth, name in enumerate(names, start=1):
        value = value.get(name)
        require_mapping(".".join(names[:depth]), value)


def _override(settings: dict[str, Any], key: str, section: dict[str, Any], full_name: str) -> int:
    """Let a top-level setting, where given, replace the one that it abbreviates. Both then hold the value in force."""
    name = full_name.rpartition(".")[2]
    given = settings[key] != ""
    value = require_integer(*((key, settings[key]) if given else (full_name, section.get(name))), 1)
    settings[key] = section[name] = value
    return value


def _default_device(usable: tuple[str, ...]) -> str:
    return "cuda:0" if "cuda" in usable and torch.cuda.is_available() else "cpu"


def complete_experiment(
    cfg: DictConfig, simulators: Mapping[str, Mapping[str, Any]], num_envs: int | str = ""
) -> Experiment:
    """The experiment of an entry point that trains nothing: train.py's defaults where it has no such setting.

    Args:
        cfg: its configuration, with `task`, `train`, `seed` and `sim_device`.
        simulators: settings of both simulators, by side, as in train.py's configuration.
        num_envs: as for train.py.
    """
    settings = cast(dict[str, Any], OmegaConf.to_container(OmegaConf.load(CONFIG_DIR / "config.yaml")))
    del settings["defaults"]
    settings |= {key: cfg[key] for key in ("task", "train", "seed", "sim_device")}
    settings["config_dir"] = cfg.get("config_dir", "")
    return Experiment(OmegaConf.create(settings | {"num_envs": num_envs, "simulator": simulators}))


def plain(node: DictConfig) -> dict[str, Any]:
    """A part of a configuration as plain values."""
    return cast(dict[str, Any], OmegaConf.to_container(node, resolve=True))
