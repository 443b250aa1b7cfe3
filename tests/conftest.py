"""Fixtures that several test folders share."""

from __future__ import annotations

import copy
import functools
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from dualfid_robot.config.machine import set_environment

set_environment()  # before the first import of torch and MuJoCo

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config import engines
from dualfid_robot.config.engines import hydra_apart
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.robots.model import RobotModel

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import forked

# Files that take longest, the longest first: they begin first, so that at the end no process is alone with one of them.
LONGEST = [
    *("packaging/test_installed.py", "evaluate/test_check_task.py", "adapters/test_adapters.py"),
    *("studies/test_study.py", "train/test_paired_training.py", "isaacgym/test_scripts.py", "train/test_resume.py"),
    *("simulators/test_pybullet.py", "train/test_distributed.py", "export/test_export.py", "train/test_run_folder.py"),
    *("fake_gpu/test_fake_gpu.py", "transfer/test_left_out.py", "studies/test_plan.py", "export/test_player.py"),
    *("simulators/test_physx.py", "studies/test_report.py", "simulators/test_mujoco_warp.py"),
    *("export/test_graphs.py", "export/test_robot_loop.py", "export/test_header.py", "test_notebook.py"),
    *("config/test_command_line.py", "isaacgym/test_foreign_task.py", "evaluate/test_your_own_robot.py"),
    *("studies/test_job.py", "train/test_trainer.py", "simulators/test_calibration.py", "train/test_viewer.py"),
    *("simulators/test_scenes.py", "transfer/test_matrix.py", "evaluate/test_evaluation.py"),
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files, for `make test`: the longest, then those with many tests."""
    tests = Counter(item.path for item in items)
    ranks = {ROOT / "tests" / name: rank for rank, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (ranks.get(item.path, len(ranks)), -tests[item.path]))


def pytest_report_header() -> str:
    cuda = torch.cuda.is_available()
    return "gpu tests: " + (torch.cuda.get_device_name() if cuda else "skipped, PyTorch sees no CUDA device")


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("PyTorch sees no CUDA device")


@pytest.fixture(scope="session")
def ant() -> RobotModel:
    return RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))


@pytest.fixture(scope="session")
def cartpole() -> RobotModel:
    return RobotModel(ASSETS / "cartpole.xml")


@pytest.fixture
def compose_config() -> Callable[..., DictConfig]:
    """Compose cfg/config.yaml with overrides, as the command line does."""
    return lambda *overrides: copy.deepcopy(_composed(overrides, Path.cwd(), engines.pybullet_is_installed()))


@functools.cache
def _composed(overrides: tuple[str, ...], folder: Path, pybullet: bool) -> DictConfig:
    """A configuration, which depends on the present folder and on the machine."""
    with hydra_apart():
        return engines.compose_config(overrides)


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an entry point in an empty folder: run_script("train.py", "task=Ant", ...).

    Its process is forked from one that has imported the program, which saves seconds each time.
    """

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        return forked.completed(forked.run_script, (script, arguments), tmp_path)

    return run
