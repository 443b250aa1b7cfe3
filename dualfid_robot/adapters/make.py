"""The environments of a task by name, configured as train.py configures them, for everyone else's algorithms."""

from __future__ import annotations

from collections.abc import Sequence

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from dualfid_robot.adapters.gymnasium import PoolVectorEnv
from dualfid_robot.config.command_line import describe
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError


def make_vec(
    task: str,
    num_envs: int | None = None,
    simulator: str | None = None,
    seed: int | None = None,
    device: str | None = None,
    overrides: Sequence[str] = (),
    tensors: bool = False,
) -> PoolVectorEnv:
    """A `gymnasium.vector.VectorEnv` of a task in one simulator.

    None stands for train.py's default: see cfg/config.yaml and the task's YAML.

    Args:
        task: a file of cfg/task.
        num_envs: number of environments.
        simulator: a file of cfg/simulator. None takes train.py's simulator/high.
        seed: of the initial states. `reset(seed=…)` sets another one.
        device: of the simulator, such as "cpu" or "cuda:0".
        overrides: further settings as on train.py's command line, such as "task.env.episodeLength=200". The simulator's
            own settings stand under `simulator.high`.
        tensors: return views of the simulator's device instead of NumPy copies (see `PoolVectorEnv`).

    Raises:
        ConfigError: names the setting, its value and what is allowed.
    """
    for group, name in (("task", task), ("simulator", simulator)):
        known = sorted(path.stem for path in (CONFIG_DIR / group).glob("*.yaml"))
        if name is not None and name not in known:
            raise ConfigError(f"{group}={name}: allowed are {known}")
    if isinstance(overrides, str):
        raise ConfigError(f"overrides={overrides}: a list is expected")
    named = {"task": task, "num_envs": num_envs, "simulator/high": simulator, "seed": seed, "sim_device": device}
    arguments = [f"{key}={value}" for key, value in named.items() if value is not None]
    try:
        with hydra_apart():  # the caller may itself be a Hydra application
            experiment = Experiment(compose_config([*arguments, *overrides]))
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(describe(error)) from error
    pool = experiment.make_pool(experiment.high_engine, experiment.num_envs, experiment.seed)
    return PoolVectorEnv(pool, tensors)
