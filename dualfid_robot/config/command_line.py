"""What every entry point shares: configuration groups, the command line, and errors as one line with status 2.

This module imports neither torch nor an engine, so that `--help` answers at once.
"""

from __future__ import annotations

import errno
import functools
import os
import re
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Any, NoReturn

import hydra
import yaml
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, InterpolationKeyError, OmegaConfBaseException

from dualfid_robot.config.engines import choose_engines, register_groups, simulator_names
from dualfid_robot.config.faulty_file import brief, check_config_dirs, faulty_file
from dualfid_robot.config.help import asks_for_help, help_text
from dualfid_robot.config.hints import quoted, setting
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.config.output import make_output_safe
from dualfid_robot.config.user_folder import command_line_config_dir, remember_config_dir
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import alternatives, require_mapping

_USER_ERRORS = (ConfigError, HydraException, OmegaConfBaseException, yaml.YAMLError, OSError, UnicodeDecodeError)
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENOLCK)

_NO_PLACE = "No usable temporary directory"  # tempfile's error where it may write to none

_NO_MAPPING = "Invalid loaded object type"  # OmegaConf's OSError of a file that holds a number

_NO_TEXT = re.compile(r"null|true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?|\{.*", re.IGNORECASE)  # values of settings

# Hydra's options that take a value.
_WITH_VALUES = (
    *("--config-dir", "-cd", "--config-path", "-cp", "--config-name", "-cn", "--cfg", "-c", "--package", "-p"),
    "--experimental-rerun",
)
_OPTIONS = (
    *_WITH_VALUES,
    *("--help", "-h", "--hydra-help", "--version", "--resolve", "--run", "-r", "--multirun", "-m", "--info", "-i"),
    *("--shell-completion", "-sc"),
)

# Settings of IsaacGymEnvs that would do nothing here: the values that ask for nothing, and what to use instead.
_VIDEO = "videos are made with capture_video=True, and viewer=browser shows a run"
_INERT: dict[str, tuple[tuple[str, ...], str]] = {
    "physics_engine": ((), "engines are chosen with simulator/high=… and simulator/low=…"),
    "pipeline": ((), "the device is chosen with sim_device=… and rl_device=…"),
    "graphics_device_id": ((), _VIDEO),
    "num_threads": ((), "threads are set with simulator.high.threads=…"),
    "solver_type": ((), "the solver is set with simulator.high.cone=…, simulator.high.iterations=…"),
    "num_subscenes": ((), "no engine here has sub-scenes"),
    "sigma": (("''", ""), "the initial log standard deviation is train.params.network.sigma_init=…"),
    "pbt": (("no_pbt",), "there is no population-based training here; -m sweeps settings"),
    "force_render": ((), _VIDEO),
    "wandb_logcode_dir": (("''", ""), "a run's folder and wandb's own git settings say which code it was"),
}


def run(
    name: str,
    main: Callable[[DictConfig], None],
    config_name: str,
    lists: Sequence[str] = (),
    positional: Sequence[str] = (),
) -> None:
    """Run an entry point under Hydra. Whatever the user can mend is one line on stderr and exit status 2.

    SIGTERM ends it as Ctrl-C does, so that no half-written file stays. While a run is trained, both save first.

    Args:
        name: of the command.
        main: takes the composed configuration.
        config_name: name of the YAML file in cfg/.
        lists: settings of which `key=a,b` means both values, not one job for each.
        positional: settings that arguments without a key are the values of, in this order.
    """
    make_output_safe()
    signal.signal(signal.SIGTERM, _end)
    os.environ["HYDRA_FULL_ERROR"] = "1"  # let exceptions reach us instead of Hydra's own report and status 1
    try:
        if asks_for_help(sys.argv[1:]):
            print(help_text(name, config_name, sys.argv[1:]))
            return
        arguments = _with_keys(_refuse_inert(_options_first(sys.argv[1:])), positional)
        sys.argv[1:] = [_as_list(argument, lists) for argument in arguments]
        check_config_dirs()
        _check_choices(sys.argv[1:])
        register_groups()
        job = _reporting(main, config_name)
        hydra.main(config_path=str(CONFIG_DIR), config_name=config_name, version_base="1.3")(job)()
    except _USER_ERRORS as error:
        exit_with(error)
    except (ValueError, RecursionError) as error:
        if HydraConfig.initialized():  # the settings were composed: a fault of the program
            raise
        endless = "settings are nested too deeply, or files include each other by their `defaults`"
        exit_with(faulty_file() or ConfigError(endless if isinstance(error, RecursionError) else brief(error)))
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)


def _end(number: int, frame: FrameType | None) -> None:
    sys.exit(128 + number)


def _reporting(main: Callable[[DictConfig], None], config_name: str) -> Callable[[DictConfig], None]:
    """A job for Hydra that reports its errors itself. Hydra would put a line of its own before them."""

    @functools.wraps(main)
    def job(cfg: DictConfig) -> None:
        hydra_job = HydraConfig.get()
        try:
            _check_kinds(cfg, config_name, hydra_job.runtime.choices)
            remember_config_dir(cfg, command_line_config_dir())
            main(choose_engines(cfg, hydra_job.runtime.choices, hydra_job.overrides.task))
        except _USER_ERRORS as error:
            exit_with(error)
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            exit_with(ConfigError(f"there is not enough memory; use a smaller num_envs ({describe(error)})"))

    return job


def _check_kinds(cfg: DictConfig, config_name: str, choices: Mapping[str, Any]) -> None:
    """Raise ConfigError where a group, or a setting that is True or False in the command's file, has become something
    else."""
    for group in sorted({choice.partition("/")[0] for choice in choices} & cfg.keys()):
        require_mapping(group, cfg[group])
    for key, default in OmegaConf.load(CONFIG_DIR / f"{config_name}.yaml").items():
        value = cfg[key] if isinstance(default, bool) else True
        if not isinstance(value, bool):
            raise ConfigError(f"{key!s}={value}: True or False is expected")


def is_out_of_memory(error: Exception) -> bool:
    """Whether there was too little memory: NumPy and MuJoCo raise MemoryError, torch and Warp RuntimeError."""
    return (
        isinstance(error, MemoryError)
        or re.search("out of memory|allocate|size calculation overflowed", str(error)) is not None
    )


def exit_with(error: Exception) -> NoReturn:
    """Say what the user can mend in one line, and end with status 2."""
    if isinstance(error, UnicodeDecodeError) or not str(error).strip() or str(error).startswith(_NO_MAPPING):
        error = faulty_file() or error
    if (
        isinstance(error, OSError)
        and not isinstance(error, HydraException)
        and error.filename is None
        and error.errno not in _DISK_ERRORS
        and _NO_PLACE not in str(error)
    ):
        raise error  # it is about no file: a fault of the program
    if int(os.environ.get("RANK", 0)) > 0:
        time.sleep(5.0)  # what rank 0 finds too, it says for all: torchrun ends the others when it exits
    print(f"error: {describe(error)}", file=sys.stderr)
    sys.exit(2)


def _options_first(arguments: Sequence[str]) -> list[str]:
    """Hydra's options, each with its value in one word, before the settings. Hydra takes none between settings.

    Raises:
        ConfigError: an option lacks its value, or there is none of that name.
    """
    options: list[str] = []
    settings: list[str] = []
    rest = iter(arguments)
    for argument in rest:
        if argument in _WITH_VALUES:
            value = next(rest, None)
            if value is None:
                raise ConfigError(f"{argument}: a value is expected behind it")
            options.append(f"{argument}={value}")
        elif not argument.startswith("-"):
            settings.append(argument)
        elif argument.partition("=")[0] in _OPTIONS:
            options.append(argument)
        else:
            raise ConfigError(f"{argument}: no such option; --help lists the settings, which are typed key=value")
    return [*options, *settings]


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
    """The arguments, with their keys before those that have none. These are files and may hold any character."""
    keys = iter(positional)
    kept = []
    for argument in arguments:
        is_value = not argument.startswith("-") and ("=" not in argument or os.path.exists(argument))
        key = next(keys, None) if is_value else None
        kept.append(argument if key is None else f"{key}={quoted(argument)}")
    return kept


def _check_choices(arguments: Sequence[str]) -> None:
    """Raise ConfigError where what is chosen among the files of a folder of cfg/ is no name, nor a list of names."""
    for argument in arguments:
        key, _, value = argument.partition("=")
        folder = key.removesuffix("/low").removesuffix("/high")
        if argument.startswith("-") or not (CONFIG_DIR / folder).is_dir():
            continue
        if _NO_TEXT.fullmatch(value):
            raise ConfigError(f"{argument}: the name of a file in cfg/{folder} is expected")
        if key in ("task", "simulator/high") and value.startswith("["):
            raise ConfigError(f"{argument}: one name is expected, without brackets")
        name = re.sub(r"\.ya?ml\b", "", value)
        if name != value:
            raise ConfigError(f"{argument}: write the name without .yaml: {key}={name}")


def _as_list(argument: str, lists: Sequence[str]) -> str:
    """`key=a,b` in Hydra's notation for a list, where the key takes one."""
    key, _, value = argument.partition("=")
    return f"{key}=[{value}]" if key in lists and "," in value and not value.startswith("[") else argument


def describe(error: Exception) -> str:
    """One line for an error: the key, the value and what is allowed, without Hydra's and OmegaConf's further lines."""
    if isinstance(error, MissingConfigException) and error.missing_cfg_file is not None:
        group, _, option = error.missing_cfg_file.rpartition("/")
        # Hydra tells no options where a list was given: one of E_low's engines, or a file's `defaults`
        options = error.options or (simulator_names() if group.startswith("simulator") else None)
        return f"{group}={option}: allowed are {sorted(options)}" if options else f"{group}/{option}: no such file"
    if isinstance(error, OverrideParseException):
        key, is_setting, value = str(error.override).partition("=")
        if not is_setting:
            return f"{error.override}: a setting is typed key=value, such as task=Ant"
        reason = "".join(f" ({line})" for line in error.message.splitlines()[:1] if str(error.override) not in line)
        text = f"; a text is written {setting(key, value)}" if value else ""
        return f"{error.override}: Hydra cannot read it{reason}{text}"
    if isinstance(error, OSError):
        return ": ".join(text for text in (error.filename, error.strerror) if text)
    if isinstance(error, UnicodeDecodeError):
        return f"a file that should be text in UTF-8 is none ({error})"
    if other := re.search(r"To append to your default list use \+(simulator(?:/low|/high)?)=(.*)", str(error)):
        meant = ("simulator/high", "simulator/low") if other[1] == "simulator" else ("simulator",)
        return f"{other[1]}={other[2]}: did you mean {' or '.join(f'{name}={other[2]}' for name in meant)}?"
    if isinstance(error, InterpolationKeyError) and (
        absent := re.match("Interpolation key '(.*)' not found", str(error))
    ):
        return f"{absent[1]}: is not set, but {error.full_key} takes its value"
    cause = error.__cause__
    if isinstance(cause, ConfigKeyError | ConfigAttributeError) and cause.full_key:
        known = (
            [str(key) for key in cause.parent_node if key != "hydra"]
            if isinstance(cause.parent_node, DictConfig)
            else []
        )
        return f"{cause.full_key}: no such setting; {alternatives(str(cause.key), known)}"
    return brief(error)
