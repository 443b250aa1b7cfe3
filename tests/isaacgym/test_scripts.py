"""Whole scripts of both styles, through the launcher in processes of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import dualfid_robot

ROOT = Path(dualfid_robot.__file__).parents[1]
SCRIPTS = Path(__file__).parent / "scripts"


def launch(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """What `python -m dualfid_robot.isaacgym` says."""
    command = [sys.executable, "-m", "dualfid_robot.isaacgym", *arguments]
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(command, capture_output=True, text=True, env=variables, cwd=ROOT, timeout=600)


def test_a_task_in_the_style_of_isaacgymenvs(pole: Path) -> None:
    result = launch(str(SCRIPTS / "vec_task.py"), str(pole))
    assert result.returncode == 0, result.stderr
    found = re.search(r"resets (\d+) cart (\S+)", result.stdout)
    assert found and int(found[1]) >= 8 and float(found[2]) > 0.05
    assert "vec_task.py runs on engine mujoco" in result.stderr
    assert "force sensors measure contacts alone" in result.stderr


@pytest.mark.parametrize(("terrain", "ground"), [("plane", 0.0), ("heightfield", 0.1), ("trimesh", 0.1)])
def test_a_task_in_the_style_of_legged_gym(walker: Path, terrain: str, ground: float) -> None:
    """It stands: 0.28 m above the ground, upright, and its feet carry 10.4 kg and the random masses' mean."""
    result = launch("--threads", "1", str(SCRIPTS / "legged_robot.py"), f"--asset={walker}", f"--terrain={terrain}")
    assert result.returncode == 0, result.stderr
    found = re.search(r"device (\S+) height (\S+) upright (\S+) load (\S+)", result.stdout)
    assert found
    assert found[1] == ("cuda:0" if torch.cuda.is_available() else "cpu")
    assert float(found[2]) == pytest.approx(ground + 0.28, abs=0.02)
    assert float(found[3]) > 0.99
    assert float(found[4]) == pytest.approx(10.4 * 9.81, rel=0.1)
    assert "armature of joints under explicit efforts is at least 0.01" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--engine", "bullet", "x.py"], "engine=bullet: allowed are"),
        (["nowhere.py"], "script=nowhere.py: no such file"),
        (["--threads", "-1", "x.py"], "--threads=-1: must be a whole number of at least 0"),
        (["--armature-floor", "nan", "x.py"], "--armature-floor=nan: must be a number in [0, 100]"),
        (["--feet", "", "x.py"], "--feet=: allowed are parts of bodies' names, none of them empty"),
    ],
)
def test_bad_input_is_one_line(arguments: list[str], says: str) -> None:
    result = launch(*arguments)
    assert result.returncode == 2 and says in result.stderr and "Traceback" not in result.stderr


def test_an_unknown_name_is_named(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from isaacgym import gymapi\ngymapi.acquire_gym().create_soft_body()\n")
    result = launch(str(script))
    assert result.returncode == 2
    assert "isaacgym: gym.create_soft_body is not provided on engine mujoco" in result.stderr


def test_nvidias_package_is_not_shadowed_unless_asked(tmp_path: Path) -> None:
    package = tmp_path / "isaacgym"
    package.mkdir()
    (package / "__init__.py").write_text("")
    script = tmp_path / "script.py"
    script.write_text("from isaacgym import gymapi\nprint(gymapi.__name__)\n")
    path = f"{ROOT}{os.pathsep}{tmp_path}"
    refused = launch(str(script), PYTHONPATH=path)
    assert refused.returncode == 2 and "pass --replace" in refused.stderr
    replaced = launch("--replace", str(script), PYTHONPATH=path)
    assert replaced.stdout.strip() == "dualfid_robot.isaacgym.api.gymapi"


@pytest.mark.slow
@pytest.mark.parametrize("variable", ["LEGGED_GYM", "UNITREE_RL_GYM", "ISAACGYMENVS"])
def test_the_real_repositories_train_for_two_iterations(variable: str) -> None:
    """Needs the repository's folder in an environment variable, and its other packages in PYTHONPATH."""
    folder = os.environ.get(variable)
    if folder is None:
        pytest.skip(f"{variable} names no folder")
    path = f"{ROOT}{os.pathsep}{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    if variable == "ISAACGYMENVS":
        script = f"{folder}/isaacgymenvs/train.py"
        own = ["task=Cartpole", "headless=True", "sim_device=cpu", "rl_device=cpu", "pipeline=cpu", "num_envs=64"]
        own += ["max_iterations=2", "train.params.config.minibatch_size=1024"]
    else:
        script = f"{folder}/legged_gym/scripts/train.py"
        task = "anymal_c_flat" if variable == "LEGGED_GYM" else "go2"
        own = [
            f"--task={task}",
            "--headless",
            "--sim_device=cpu",
            "--rl_device=cpu",
            "--num_envs=16",
            "--max_iterations=2",
        ]
    result = launch(script, *own, PYTHONPATH=path)
    assert result.returncode == 0, result.stderr
    assert "MAX EPOCHS" in result.stdout or "Learning iteration 1/2" in result.stdout
