"""Settings with any values: a run that learns, or one line that names what is wrong."""

from __future__ import annotations

import copy
import functools

from damage import EXAMPLES, is_one_line
from hypothesis import example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from small import SMALL

from dualfid_robot.config.command_line import describe
from dualfid_robot.config.engines import compose_config, hydra_apart
from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.train.trainer import Trainer

OF_A_PROCESS = ("checkpoint", "resume", "accept_changes", "test", "agent", "headless", "capture_video", "multi_gpu")
MOST_ROWS = 2000  # of a rollout that is tried
MOST_STEPS = 200  # of physics in a control period, likewise


@functools.cache
def composed(randomize: bool) -> DictConfig:
    with hydra_apart():
        return compose_config([*SMALL, f"task.randomize={randomize}", "task.env.episodeLength=3"])


def leaves(config: DictConfig, prefix: str = "") -> list[str]:
    """Full names of the settings that are no sections."""
    keys: list[str] = []
    for key in config:
        path = f"{prefix}{key}"
        value = config[key]
        keys += leaves(value, f"{path}.") if isinstance(value, DictConfig) and len(value) else [path]
    return keys


KEYS = st.sampled_from([key for key in leaves(composed(True)) if key not in OF_A_PROCESS])
VALUES = st.one_of(
    st.integers(-3, 20),
    st.floats(),
    st.floats(0.0, 1.0),
    st.booleans(),
    st.none(),
    st.text(max_size=5),
    st.sampled_from([10**9, 10**30, 1e-30, 1e30, -1e30, "1e3", "inf", [], [1], [0.5, 1.5], ["a"], {}, {"a": 1}]),
)


@settings(max_examples=EXAMPLES, deadline=None)
@given(changes=st.dictionaries(KEYS, VALUES, min_size=1, max_size=3), randomize=st.booleans())
@example(changes={"task.randomization.mass.range": {}}, randomize=False)
@example(changes={"simulator.low.mujoco_reduced.name": []}, randomize=False)
@example(changes={"allocation.rule.name": []}, randomize=False)
@example(changes={"train.params.config.bounds_loss_coef": 2.7e39}, randomize=False)
@example(changes={"train.params.config.learning_rate": 1e30}, randomize=False)
@example(changes={"train.params.config.reward_scale": 1e30}, randomize=False)
def test_any_values(changes: dict[str, object], randomize: bool) -> None:
    config = copy.deepcopy(composed(randomize))
    try:
        for key, value in changes.items():
            OmegaConf.update(config, key, value, force_add=True)
        experiment = Experiment(config)
        experiment.make_task()
        experiment.ppo.num_minibatches(experiment.num_envs)
        if is_small(experiment):
            trainer = Trainer(experiment)
            try:
                for _ in range(2):
                    trainer.iterate()
            finally:
                trainer.close()
    except (ConfigError, OmegaConfBaseException) as error:
        assert is_one_line(ConfigError(describe(error)))


def is_small(experiment: Experiment) -> bool:
    """Whether a run of it takes no noticeable time and memory."""
    rows = experiment.num_envs * experiment.ppo.horizon_length * experiment.ppo.mini_epochs
    widths = sum(experiment.network.mlp.units) + experiment.network.adapter.rank
    steps = max(engine["substeps"] for engine in experiment.engines.values())
    return rows <= MOST_ROWS and widths <= 100 and steps <= MOST_STEPS
