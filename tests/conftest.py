"""Fixtures that several test folders share."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from dualfid_robot.config.machine import set_environment

set_environment()  # before the first import of torch and MuJoCo

import pytest
import torch
from omegaconf import DictConfig

from dualfid_robot.config.engines import compose_config as config_of
from dualfid_robot.config.engines import hydra_apart
from dualfid_robot.config.machine import ASSETS
from dualfid_robot.robots.model import RobotModel

ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "benchmarks"))

import forked


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

    def composed(*overrides: str) -> DictConfig:
        with hydra_apart():
            return config_of(overrides)

    return composed


@pytest.fixture
def run_script(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run an entry point in an empty folder: run_script("train.py", "task=Ant", ...).

    Its process is forked from one that has imported the program, which saves seconds each time.
    """

    def run(script: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        with tempfile.TemporaryDirectory() as name:
            errors, output = Path(name) / "errors", Path(name) / "output"
            process = forked.start(forked.run_script, (script, arguments), tmp_path, errors, output)
            process.join(300)
            if process.exitcode is None:
                process.kill()
                raise subprocess.TimeoutExpired([script, *arguments], 300, output.read_text(), errors.read_text())
            return subprocess.CompletedProcess(
                [script, *arguments], process.exitcode, output.read_text(), errors.read_text()
            )

    return run
