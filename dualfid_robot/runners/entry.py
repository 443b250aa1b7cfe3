"""What every entry point shares: configuration groups, the command line, and errors as one line with status 2.

This module imports neither torch nor an engine, so that `--help` answers at once.
"""

from __future__ import annotations

import difflib
import functools
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException, MissingConfigException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from dualfid_robot.errors import ConfigError

ROOT = Path(__file__).parents[2]
CONFIG_DIR = ROOT / "cfg"
DEFAULT_ENGINES = {"low": "pybullet", "high": "mujoco"}
FALLBACK_LOW = "mujoco_reduced"

_USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, YAMLError)

# Settings of IsaacGymEnvs that would do nothing here: the values that ask for nothing, and what to use instead.
_CURVES = "curves are written for TensorBoard under runs/"
_VIDEO = "a video shows one episode of a checkpoint: test=True checkpoint=… capture_video=True"
_INERT: dict[str, tuple[tuple[str, ...], str]] = {
    "physics_engine": ((), "engines are chosen with simulator/high=… and simulator/low=…"),
    "pipeline": ((), "the device is chosen with sim_device=… and rl_device=…"),
    "graphics_device_id": ((), _VIDEO),
    "num_threads": ((), "threads are set with simulator.high.threads=…"),
    "solver_type": ((), "the solver is set with simulator.high.cone=…, simulator.high.iterations=…"),
    "num_subscenes": ((), "no engine here has sub-scenes"),
    "sigma": (("''", ""), "the initial log standard deviation is train.params.network.sigma_init=…"),
    "multi_gpu": (("false", "''", ""), "training runs in one process"),
    "pbt": (("no_pbt",), "there is no population-based training here; -m sweeps settings"),
    "capture_video_freq": ((), _VIDEO),
    "capture_video_len": ((), _VIDEO),
    "force_render": ((), _VIDEO),
    "wandb_activate": (("false", "''", ""), _CURVES),
    **dict.fromkeys(
        (f"wandb_{key}" for key in ("group", "name", "entity", "project", "tags", "logcode_dir")), ((), _CURVES)
    ),
}


def run(main: Callable[[DictConfig], None], config_name: str) -> None:
    """Run an entry point under Hydra; whatever the user can mend is one line on stderr and exit status 2.

    Args:
        main: takes the composed configuration.
        config_name: name of the YAML file in cfg/.
    """
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach us instead of Hydra's own report and status 1
    try:
        sys.argv[1:] = _refuse_inert(sys.argv[1:])
        register_simulators()
        hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(_reporting(main))()
    except _USER_ERRORS as error:
        _exit_with(error)


def _reporting(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """The same job with its errors reported by us: Hydra would put a line of its own before them."""

    @functools.wraps(main)
    def job(cfg: DictConfig) -> None:
        try:
            main(cfg)
        except _USER_ERRORS as error:
            _exit_with(error)

    return job


def _exit_with(error: Exception) -> NoReturn:
    print(f"error: {describe(error)}", file=sys.stderr)
    sys.exit(2)


def register_simulators() -> None:
    """Offer each file of cfg/simulator/ as an option of both `simulator/low` and `simulator/high`."""
    store = ConfigStore.instance()
    for side, engine in DEFAULT_ENGINES.items():
        for path in sorted((CONFIG_DIR / "simulator").glob("*.yaml")):
            store.store(group=f"simulator/{side}", name=path.stem, node=OmegaConf.load(path))
        default = CONFIG_DIR / "simulator" / f"{_installed(engine)}.yaml"
        store.store(group=f"simulator/{side}", name="default", node=OmegaConf.load(default))


def _installed(engine: str) -> str:
    if engine == "pybullet" and importlib.util.find_spec("pybullet") is None:
        return FALLBACK_LOW
    return engine


def notify_fallback(choice: str) -> None:
    """Say so where the default low simulator is not the one that the documentation promises.

    Args:
        choice: the option chosen for `simulator/low`.
    """
    engine = DEFAULT_ENGINES["low"]
    if choice == "default" and _installed(engine) != engine:
        logging.getLogger(__name__).warning(
            "%s is not installed (PyPI has no wheel of it for Python >= 3.12): simulator/low=%s is used instead",
            engine,
            FALLBACK_LOW,
        )


def _refuse_inert(arguments: Sequence[str]) -> list[str]:
    """The arguments without those that ask for nothing.

    Raises:
        ConfigError: a setting of IsaacGymEnvs that would do nothing here.
    """
    kept = []
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key in _INERT:
            harmless, reason = _INERT[key]
            if value.lower() not in harmless:
                raise ConfigError(f"{argument}: does nothing here; {reason}")
        else:
            kept.append(argument)
    return kept


def describe(error: Exception) -> str:
    """One line for an error: the key, the value and what is allowed, without Hydra's and OmegaConf's further lines."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: allowed are {sorted(error.options)}"
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        return f"{cause.full_key}: no such setting{_similar(cause)}"
    return " ".join(str(error).split())


def _similar(error: OmegaConfBaseException) -> str:
    if not isinstance(error.parent_node, DictConfig):
        return ""
    known = [str(key) for key in error.parent_node]
    close = difflib.get_close_matches(str(error.key), known, n=3)
    return f"; did you mean {' or '.join(close)}?" if close else f"; allowed are {sorted(known)}"
