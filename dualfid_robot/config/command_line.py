"""What every entry point shares: configuration groups, the command line, and errors as one line with status 2.

This module imports neither torch nor an engine, so that `--help` answers at once.
"""

from __future__ import annotations

import difflib
import errno
import functools
import logging
import os
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

import hydra
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException
from yaml import YAMLError

from dualfid_robot.config.machine import (
    CONFIG_DIR,
    DEFAULT_HIGH,
    DEFAULT_HIGH_ON_GPU,
    DEFAULT_LOW,
    FALLBACK_LOW,
    gpu_is_usable,
    pybullet_is_installed,
)
from dualfid_robot.config.output import make_output_safe
from dualfid_robot.config.user_folder import UserFolder, command_line_config_dir, remember_config_dir
from dualfid_robot.errors import ConfigError

_USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, YAMLError, OSError, UnicodeDecodeError)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOLCK)

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
    "pbt": (("no_pbt",), "there is no population-based training here; -m sweeps settings"),
    "capture_video_freq": ((), _VIDEO),
    "capture_video_len": ((), _VIDEO),
    "force_render": ((), _VIDEO),
    "wandb_activate": (("false", "''", ""), _CURVES),
    **dict.fromkeys(
        (f"wandb_{key}" for key in ("group", "name", "entity", "project", "tags", "logcode_dir")), ((), _CURVES)
    ),
}


def run(
    main: Callable[[DictConfig], None], config_name: str, lists: Sequence[str] = (), positional: Sequence[str] = ()
) -> None:
    """Run an entry point under Hydra; whatever the user can mend is one line on stderr and exit status 2.

    Args:
        main: takes the composed configuration.
        config_name: name of the YAML file in cfg/.
        lists: settings of which `key=a,b` means both values, not one job for each.
        positional: settings that arguments without a key are the values of, in this order.
    """
    make_output_safe()
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach us instead of Hydra's own report and status 1
    try:
        arguments = _with_keys(_refuse_inert(sys.argv[1:]), positional)
        sys.argv[1:] = [_as_list(argument, lists) for argument in arguments]
        register_simulators(sys.argv[1:])
        hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(_reporting(main))()
    except _USER_ERRORS as error:
        exit_with(error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _reporting(main: Callable[[DictConfig], None]) -> Callable[[DictConfig], None]:
    """The same job with its errors reported by us: Hydra would put a line of its own before them."""

    @functools.wraps(main)
    def job(cfg: DictConfig) -> None:
        try:
            remember_config_dir(cfg, command_line_config_dir())
            main(settle_low(cfg))
        except _USER_ERRORS as error:
            exit_with(error)

    return job


def exit_with(error: Exception) -> NoReturn:
    """Say what the user can mend in one line, and end with status 2."""
    if isinstance(error, OSError) and error.filename is None and error.errno not in _DISK_ERRORS:
        raise error  # it is about no file: a fault of the program
    if int(os.environ.get("RANK", 0)) > 0:
        time.sleep(5.0)  # what rank 0 finds too, it says for all: torchrun ends the others when it exits
    print(f"error: {describe(error)}", file=sys.stderr)
    sys.exit(2)


def register_simulators(arguments: Sequence[str] = ()) -> None:
    """Offer each file of cfg/simulator/ as an option of both `simulator/low` and `simulator/high`, and as `default`
    the one that suits this machine.

    Args:
        arguments: the settings of the command line, of which `sim_device` says whether a GPU shall be used, and `task`
            which low simulator.
    """
    store = ConfigStore.instance()
    for side, default in (("low", _default_low(arguments)), ("high", _default_high(arguments))):
        for path in sorted((CONFIG_DIR / "simulator").glob("*.yaml")):
            store.store(group=f"simulator/{side}", name=path.stem, node=OmegaConf.load(path))
        store.store(
            group=f"simulator/{side}", name="default", node=OmegaConf.load(CONFIG_DIR / "simulator" / f"{default}.yaml")
        )


def _default_low(arguments: Sequence[str]) -> str:
    """The low simulator that the task names; else PyBullet, of which `settle_low` finds out whether it takes the task.

    A task that is not in cfg/task/ is left to that, too.
    """
    path = CONFIG_DIR / "task" / f"{_argument(arguments, 'task') or 'Ant'}.yaml"
    named = OmegaConf.select(OmegaConf.load(path), "low") if path.is_file() else None
    if named and (CONFIG_DIR / "simulator" / f"{named}.yaml").is_file():
        return str(named)
    return DEFAULT_LOW if pybullet_is_installed() else FALLBACK_LOW


def _argument(arguments: Sequence[str], key: str) -> str:
    """The last value of a setting on the command line; empty where there is none."""
    return next((text.partition("=")[2] for text in reversed(arguments) if text.startswith(f"{key}=")), "")


def _default_high(arguments: Sequence[str]) -> str:
    device = _argument(arguments, "sim_device")
    on_gpu = gpu_is_usable() if device in ("", "''") else device.startswith("cuda")
    return DEFAULT_HIGH_ON_GPU if on_gpu else DEFAULT_HIGH


def settle_low(cfg: DictConfig) -> DictConfig:
    """The configuration of a Hydra job with the low simulator that suits the task, where the user chose none.

    Raises:
        ConfigError: the task's settings are wrong.
    """
    job = HydraConfig.get()
    if job.runtime.choices.get("simulator/low") != "default" or cfg.get("test", False):
        return cfg
    from dualfid_robot.config.default_low import default_low  # imports torch, as the job will

    name, notice = default_low(cfg.task, UserFolder(cfg.get("config_dir", "")))
    if notice and int(os.environ.get("RANK", 0)) == 0:
        logging.getLogger(__name__).warning(notice)
    if name == _default_low(list(job.overrides.task)):
        return cfg
    hydra_ = GlobalHydra.instance().hydra
    assert hydra_ is not None and job.job.config_name is not None
    composed = hydra_.compose_config(
        job.job.config_name, [*job.overrides.task, f"simulator/low={name}"], RunMode.RUN, with_log_configuration=False
    )
    with open_dict(composed):
        del composed["hydra"]
    remember_config_dir(composed, command_line_config_dir())
    return composed


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


def _with_keys(arguments: Sequence[str], positional: Sequence[str]) -> list[str]:
    """The arguments, with their keys before those that have none; these are files and may hold any character."""
    keys = iter(positional)
    kept = []
    for argument in arguments:
        is_value = not argument.startswith("-") and ("=" not in argument or Path(argument).exists())
        key = next(keys, None) if is_value else None
        kept.append(argument if key is None else f"{key}={_quoted(argument)}")
    return kept


def _quoted(text: str) -> str:
    """A text in Hydra's quotes, in which a backslash before a quote, or at the end, is doubled."""
    escaped = re.sub(r"(\\*)('|$)", lambda found: 2 * found[1] + ("\\'" if found[2] else ""), text)
    return f"'{escaped}'"


def _as_list(argument: str, lists: Sequence[str]) -> str:
    """`key=a,b` in Hydra's notation for a list, where the key takes one."""
    key, _, value = argument.partition("=")
    return f"{key}=[{value}]" if key in lists and "," in value and not value.startswith("[") else argument


def describe(error: Exception) -> str:
    """One line for an error: the key, the value and what is allowed, without Hydra's and OmegaConf's further lines."""
    if isinstance(error, MissingConfigException) and error.options is not None:
        group, _, option = (error.missing_cfg_file or "").rpartition("/")
        return f"{group}={option}: allowed are {sorted(error.options)}"
    if isinstance(error, OverrideParseException):
        return f"{error.override}: {error.message.splitlines()[0]}"
    if isinstance(error, OSError):
        return ": ".join(text for text in (error.filename, error.strerror) if text)
    if isinstance(error, UnicodeDecodeError):
        return f"a file that should be text in UTF-8 is none ({error})"
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
