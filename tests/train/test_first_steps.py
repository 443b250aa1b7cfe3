"""What a new user types first: other numbers of environments, a sweep, and a line at once."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig, open_dict

from dualfid_robot.config.experiment import Experiment
from dualfid_robot.errors import ConfigError
from dualfid_robot.train.launch import fit_minibatch
from dualfid_robot.train.trainer import Trainer

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("num_envs", "size"), [(100, 1600), (128, 2048), (256, 4096), (257, 2056), (512, 4096), (511, 4088), (1, 16)]
)
def test_the_mini_batch_follows_the_environments(
    num_envs: int, size: int, compose_config: Callable[..., DictConfig], caplog: pytest.LogCaptureFixture
) -> None:
    """With 16 steps and a mini-batch of at most 4096: 257 · 16 = 2 · 2056, 511 · 16 = 2 · 4088."""
    caplog.set_level("INFO")
    experiment = Experiment(compose_config("task=Cartpole", f"num_envs={num_envs}"))
    fit_minibatch(experiment)
    assert experiment.ppo.minibatch_size == size
    assert experiment.settings["train"]["params"]["config"]["minibatch_size"] == size
    assert len(caplog.messages) == (size != 4096)
    if size != 4096:
        assert caplog.messages[0].startswith(f"minibatch_size={size} instead of 4096")


def test_a_mini_batch_that_was_typed_stays(compose_config: Callable[..., DictConfig]) -> None:
    typed = "train.params.config.minibatch_size=1000"
    cfg = compose_config("task=Cartpole", "num_envs=100", "simulator/low=mujoco_reduced", typed)
    with open_dict(cfg):
        cfg.overrides = [typed]
    experiment = Experiment(cfg)
    fit_minibatch(experiment)
    with pytest.raises(ConfigError, match=r"minibatch_size=1000: must be a divisor of .* = 100 · 16 = 1600"):
        Trainer(experiment)


@pytest.mark.slow
def test_runs_of_a_sweep_are_named_by_what_was_varied(
    run_script: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    small = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=20", "max_iterations=1")
    done = run_script("train.py", "-m", *small, "seed=1,2", "train.params.config.gamma=0.9,0.99")
    assert done.returncode == 0, done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]
    dated = r"_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d$"
    names = sorted(re.sub(dated, "", path.name) for path in (tmp_path / "runs").iterdir() if path.is_dir())
    assert names == [f"Cartpole_seed={seed}_gamma={gamma}" for seed in (1, 2) for gamma in (0.9, 0.99)]


def test_a_line_comes_before_the_heavy_imports(tmp_path: Path) -> None:
    """Measured against the time that the whole takes, so that a busy machine changes nothing."""
    began = time.monotonic()
    command = [sys.executable, str(ROOT / "train.py"), "task=Cartpole", "num_envs=nothing"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "train: PyTorch and the simulators are being loaded\n"
        said = time.monotonic() - began
        process.communicate()
    assert process.returncode == 2
    assert said < 0.5 * (time.monotonic() - began)
