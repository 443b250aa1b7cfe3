"""The wheel, installed in an environment of its own where the checkout cannot be imported, works from any folder."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from command_server import CommandServer
from forked import IMPORTED

import dualfid_robot

ROOT = Path(__file__).parents[2]
SMALL = ("num_envs=16", "simulator/low=mujoco_reduced", "train.params.config.minibatch_size=128")

USERS_TASK = """
from .base import HalfTheWay


class Swing(HalfTheWay):
    pass
"""
USERS_BASE = """
from dualfid_robot.tasks.cartpole import Cartpole


class HalfTheWay(Cartpole):
    pass
"""

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"  # a copy: building leaves files beside setup.py
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, files.decode().split("\0")):
        if (ROOT / name).exists():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, source / name, follow_symlinks=False)
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", str(folder)]
    subprocess.run([*command, str(source)], check=True)
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The folder of commands of an environment that has the wheel, and this one's other packages by their path.

    A path in a .pth file brings no .pth files of its own, so that no editable installation of the checkout is seen.
    """
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, symlinks=True)
    python = folder / "bin" / "python"
    (packages,) = folder.glob("lib/python*/site-packages")
    (packages / "machine.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*pip, str(wheel)], check=True)
    for path in [packages / "dualfid_robot", *(packages / "dualfid_robot").rglob("*")]:
        path.chmod(0o555 if path.is_dir() else 0o444)  # as where an administrator has installed it
    yield folder / "bin"
    for path in [packages / "dualfid_robot", *(packages / "dualfid_robot").rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)


@pytest.fixture(scope="module")
def served(environment: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a `dualfid` that one process of that environment forks, which takes a tenth of the time."""
    folder = tmp_path_factory.mktemp("served")
    server = CommandServer(environment / "python", variables(), IMPORTED)
    server.write_shim(folder / "dualfid", environment / "dualfid")
    yield folder
    server.close()


def variables() -> dict[str, str]:
    """The environment variables of a command."""
    return {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "MUJOCO_GL")}


class Shell:
    """Runs commands of an environment in a folder."""

    def __init__(self, commands: Path, folder: Path) -> None:
        self.commands, self.folder = commands, folder

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        program, *arguments = command
        return subprocess.run(
            [str(self.commands / program), *arguments],
            cwd=self.folder,
            env=variables(),
            capture_output=True,
            text=True,
        )

    def __call__(self, *command: str) -> str:
        result = self.run(*command)
        assert result.returncode == 0, f"{command}: {result.stderr}"
        return result.stdout

    def runs(self) -> list[Path]:
        return sorted((self.folder / "runs").iterdir())


@pytest.fixture
def shell(environment: Path, tmp_path: Path) -> Shell:
    (tmp_path / "here").mkdir()
    return Shell(environment, tmp_path / "here")


def iterations(run: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_what_the_wheel_holds(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert {name.split("/")[0] for name in names} == {
        "dualfid_robot",
        f"dualfid_robot-{dualfid_robot.__version__}.dist-info",
    }
    for folder, pattern in (("cfg", "*.yaml"), ("assets", "*.xml"), ("assets", "*.png"), ("tasks", "*.py")):
        files = {f"dualfid_robot/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob(pattern)}
        assert files and files <= names
    shipped = {f"dualfid_robot/{path.relative_to(ROOT)}" for path in (ROOT / "assets" / "policies").glob("*/*")}
    assert shipped and shipped <= names
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "dualfid_robot").rglob("*.py")}
    assert files <= names
    assert {"dualfid_robot/export/cpp/policy.hpp.in", "dualfid_robot/studies/report.html.jinja"} <= names
    assert not [name for name in names if "test_" in name or "__pycache__" in name]
    metadata = zipfile.ZipFile(wheel).read(f"dualfid_robot-{dualfid_robot.__version__}.dist-info/METADATA").decode()
    assert "License: MIT" in metadata and "# dualfid_robot" in metadata


def test_nothing_of_the_checkout_is_seen(shell: Shell) -> None:
    found = shell("python", "-c", "import dualfid_robot; print(dualfid_robot.__file__)")
    assert Path(found.strip()).is_relative_to(shell.commands.parent)
    for name in ("tasks", "cfg", "assets", "tests"):
        assert "No module named" in shell.run("python", "-c", f"import {name}").stderr


def test_the_commands_are_listed(shell: Shell) -> None:
    for arguments in ((), ("--help",)):
        listed = re.findall(r"^  (\w+) +[A-Z].*\.$", shell("dualfid", *arguments), re.MULTILINE)
        assert listed == [
            "train",
            "evaluate",
            "export",
            "play",
            "transfer",
            "study",
            "check",
            "import_robot",
            "calibrate",
            "isaacgym",
        ]
    wrong = shell.run("dualfid", "trian")
    assert (wrong.returncode, wrong.stderr.splitlines()) == (
        2,
        [f"error: trian: no such command; allowed are {listed}"],
    )
    ours = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), "--help"], env=variables(), capture_output=True, text=True
    )
    assert shell("dualfid", "train", "--help") == ours.stdout.replace(f"python {ROOT}/train.py", "dualfid train")


def test_from_training_to_playing(shell: Shell, served: Path) -> None:
    shell("dualfid", "train", "task=Cartpole", *SMALL, "max_iterations=2")
    (run,) = shell.runs()
    assert iterations(run) == [1, 2]
    forked = Shell(served, shell.folder)
    forked("dualfid", "train", "task=Cartpole", *SMALL, "max_iterations=3", "resume=True")
    assert shell.runs() == [run] and iterations(run) == [1, 2, 3]
    words = "Cartpole, adapted policy in mujoco: return"
    assert words in forked("dualfid", "evaluate", f"checkpoint={run}", "num_envs=4")
    forked("dualfid", "export", f"checkpoint={run}", "format=onnx", "num_envs=4")
    assert words in forked("dualfid", "play", f"policy={run}/export", "num_envs=2", "viewer=none")
    assert "pole_angle" in forked("dualfid", "check", "task=Cartpole", "num_envs=8", "episodes=2")
    assert [path.name for path in shell.folder.iterdir()] == ["runs"]


def test_a_policy_that_ships_is_played(shell: Shell) -> None:
    assert "Cartpole, adapted policy in mujoco: return" in shell("dualfid", "play", "task=Cartpole", "viewer=none")


def test_pybullet_and_several_processes(shell: Shell) -> None:
    pytest.importorskip("pybullet")
    several = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m", "dualfid_robot")
    arguments = ("task=Cartpole", "num_envs=32", "simulator/low=pybullet", "train.params.config.minibatch_size=128")
    shell("python", *several, "train", *arguments, "max_iterations=1", "multi_gpu=True")
    assert iterations(shell.runs()[0]) == [1]


def test_a_study(shell: Shell) -> None:
    plan = {
        "tasks": {"Cartpole": {}},
        "methods": ["high_only"],
        "gaps": ["default"],
        "budgets": [0.2],
        "seeds": [1],
        "evaluation": {"episodes": 2, "points": 1},
        "overrides": [*SMALL[:1], *SMALL[2:]],
    }
    (shell.folder / "cfg" / "study").mkdir(parents=True)
    (shell.folder / "cfg" / "study" / "one.yaml").write_text(yaml.safe_dump(plan))
    shell("dualfid", "study", "--config-dir=cfg", "study=one")
    results = list(shell.folder.glob("studies/one/runs/*/result.json"))
    assert len(results) == 2  # one is the reference
    assert {json.loads(result.read_text())["status"] for result in results} == {"finished"}
    assert (shell.folder / "studies" / "one" / "report.html").is_file()


def test_a_fit_goes_beside_the_users_files(shell: Shell) -> None:
    """The package itself is read-only here."""
    pytest.importorskip("pybullet")
    others = ("contact_stiffness", "contact_damping", "joint_damping", "child_armature", "parent_armature")
    quick = [f"~fit.pybullet.{name}" for name in (*others, "limit_inertia")]
    quick += ["choose.pybullet={substeps:[1],solver_iterations:[5]}", "windows=2", "cost_bound=100"]
    said = shell("dualfid", "calibrate", "task=Ant", "simulator/low=pybullet", *quick)
    assert said.splitlines()[-1] == "written to cfg/calibration/Ant.yaml; train.py applies it to task=Ant"
    assert "friction" in yaml.safe_load((shell.folder / "cfg" / "calibration" / "Ant.yaml").read_text())["pybullet"]


def test_a_run_remembers_the_users_folder(served: Path, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    shell = Shell(served, tmp_path / "here")
    mine = tmp_path / "mine"
    for name, text in {
        "cfg/task/Swing.yaml": (ROOT / "cfg/task/Cartpole.yaml")
        .read_text()
        .replace("name: Cartpole", "name: Swing")
        .replace("cartpole.xml", "swing.xml"),
        "cfg/train/SwingPPO.yaml": "defaults: [CartpolePPO, _self_]\nparams: {config: {name: Swing}}\n",
        "tasks/swing.py": USERS_TASK,
        "tasks/base.py": USERS_BASE,
        "assets/swing.xml": (ROOT / "assets/cartpole.xml").read_text(),
    }.items():
        (mine / name).parent.mkdir(parents=True, exist_ok=True)
        (mine / name).write_text(text)

    shell("dualfid", "train", "--config-dir=../mine/cfg", "task=Swing", *SMALL, "max_iterations=1")
    (run,) = shell.runs()
    assert yaml.safe_load((run / "config.yaml").read_text())["config_dir"] == str(mine / "cfg")
    # Neither needs to be told of it again, whatever the folder that it is called from.
    shell("dualfid", "train", "task=Swing", *SMALL, "max_iterations=2", "resume=True")
    assert shell.runs() == [run] and iterations(run) == [1, 2]
    elsewhere = Shell(served, tmp_path)
    elsewhere("dualfid", "train", "task=Swing", *SMALL, "max_iterations=3", f"checkpoint={run}/nn/last")
    assert iterations(run) == [1, 2, 3]
    assert "Swing, adapted policy" in elsewhere("dualfid", "evaluate", f"checkpoint={run}", "num_envs=4")
    elsewhere("dualfid", "export", f"checkpoint={run}", "format=onnx", "num_envs=4")
    assert "Swing, adapted policy" in elsewhere("dualfid", "play", f"policy={run}/export", "num_envs=2", "viewer=none")
    few = ("simulators=[mujoco]", "dial=[]", "num_envs=4")
    elsewhere("dualfid", "transfer", f"checkpoint={run}", *few)
    # Where it has moved, one line says so, and naming its new place helps.
    mine.rename(tmp_path / "moved")
    for command in (("evaluate", "num_envs=4"), ("train", "task=Swing", *SMALL, "max_iterations=4")):
        refused = elsewhere.run("dualfid", *command, f"checkpoint={run}")
        assert refused.returncode == 2 and refused.stderr.splitlines() == [
            f"error: config_dir={mine}/cfg: the folder of the run's own settings and tasks is gone; "
            "name its new place with --config-dir"
        ]
    elsewhere("dualfid", "evaluate", "--config-dir=moved/cfg", f"checkpoint={run}", "num_envs=4")
