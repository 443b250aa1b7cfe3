"""A run's folder: names, two processes, places that cannot be written, output that goes nowhere."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dualfid_robot.config.hints import setting
from dualfid_robot.runs.checkpoint import load_checkpoint

ROOT = Path(__file__).parents[2]

Run = Callable[..., "subprocess.CompletedProcess[str]"]
SMALL = ("task=Cartpole", "simulator/low=mujoco_reduced", "num_envs=32", "train.params.config.minibatch_size=256")
NAME = "my [b] run=:smile: \"ü\" 'x' (y)"


def unquoted(key: str, value: str | Path) -> str:
    """A setting as a program gets it when it is pasted into a shell."""
    return shlex.split(setting(key, value))[0]


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write to a folder; root needs more than permissions for that."""
    if os.geteuid() != 0:
        folder.chmod(0o555)
        yield
        folder.chmod(0o755)
        return
    if subprocess.run(["chattr", "+i", str(folder)], capture_output=True).returncode != 0:
        pytest.skip("root can write everywhere here")
    yield
    subprocess.run(["chattr", "-i", str(folder)], check=True)


def train(*arguments: str, cwd: Path, **options: object) -> subprocess.Popen[bytes]:
    command = [sys.executable, str(ROOT / "train.py"), *SMALL, *arguments]
    return subprocess.Popen(command, cwd=cwd, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def iterations_of(run: Path) -> list[int]:
    return [json.loads(line)["iteration"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def pasted(output: str, what: str) -> list[str]:
    """A command that train.py printed, as a shell takes it, without `python` and the script."""
    (line,) = [line for line in output.splitlines() if line.strip().startswith(f"{what}:")]
    return shlex.split(line.partition(":")[2])[2:]


def test_any_name_trains_goes_on_and_is_evaluated_where_nothing_can_be_written(run_script: Run, tmp_path: Path) -> None:
    """What is pasted goes on with the run's own settings, seed included."""
    first = run_script("train.py", *SMALL, unquoted("experiment", NAME), "seed=7", "max_iterations=1")
    assert first.returncode == 0, first.stderr
    again = run_script("train.py", *pasted(first.stdout, "go on"))
    warnings = [line for line in again.stderr.splitlines() if line.startswith("WARNING")]
    assert again.returncode == 0 and not warnings, again.stderr
    assert "INFO: max_iterations=2: the checkpoint was made with 1\n" in again.stdout + again.stderr
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith(f"{NAME}_") and iterations_of(run) == [1, 2]
    settings = json.loads(load_checkpoint(run)["settings"])
    assert settings["seed"] == 7 and settings["num_envs"] == 32 and settings["task"]["name"] == "Cartpole"
    relative = run.relative_to(tmp_path)
    with read_only(run / "nn"), read_only(run):
        evaluated = run_script("evaluate.py", *pasted(again.stdout, "evaluate"), "num_envs=2")
        refused = run_script("train.py", unquoted("checkpoint", relative))
    assert evaluated.returncode == 0 and "cannot be written: the report goes to" in evaluated.stderr, evaluated.stderr
    assert (tmp_path / f"{run.name}_last_adapted_mujoco.json").is_file()
    assert refused.returncode == 2 and refused.stderr.splitlines()[-1].startswith(f"error: {relative}/"), refused.stderr
    assert refused.stderr.count("error: ") == 1 and "Traceback" not in refused.stderr
    for change, message in (
        ("seed=8", "seed=8: the checkpoint was made with 7; go on with that value"),
        ("task.env.resetDist=1", "task.env.resetDist=1: the checkpoint was made with 3.0; go on with that value"),
    ):
        changed = run_script("train.py", "resume=True", change)
        assert (changed.returncode, changed.stderr) == (2, f"error: {message}\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("experiment=a/b",), "error: experiment='a/b': a name without slashes and control characters is expected"),
        (("train.params.config.name=..",), "error: train.params.config.name='..': a name without slashes"),
        (
            ("seed=99999999999999999999999",),
            "error: seed=99999999999999999999999: must be a whole number from -1 to 9223372036854775807",
        ),
        ((), "error: runs: File exists"),
    ],
)
def test_what_cannot_be_a_folder_or_a_seed_is_refused(
    arguments: tuple[str, ...], message: str, run_script: Run, tmp_path: Path
) -> None:
    (tmp_path / "runs").symlink_to(tmp_path / "nowhere")
    result = run_script("train.py", *SMALL, *arguments)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("INFO")]
    assert result.returncode == 2 and len(lines) == 1 and lines[0].startswith(message), result.stderr


@pytest.mark.slow
def test_a_second_process_is_refused_and_the_first_loses_nothing(run_script: Run, tmp_path: Path) -> None:
    often = "train.params.config.save_frequency=1"
    first = train("max_iterations=100000", often, cwd=tmp_path, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("runs/*/nn/last.pth")) and time.monotonic() < deadline:
        time.sleep(0.1)
    first.send_signal(signal.SIGHUP)  # its terminal is closed: it goes on
    (run,) = (tmp_path / "runs").iterdir()
    second = run_script("train.py", *SMALL, f"checkpoint={run}")
    assert second.returncode == 2 and len(second.stderr.splitlines()) == 1
    assert f"error: checkpoint={run}/nn/last.pth: process {first.pid} on " in second.stderr
    first.send_signal(signal.SIGTERM)
    _, errors = first.communicate(timeout=60)
    assert first.returncode == 0, errors.decode()
    done = iterations_of(run)
    assert done == list(range(1, len(done) + 1)) and len(done) > 1
    assert f"SIGTERM: saved after iteration {done[-1]}" in errors.decode()


@pytest.mark.slow
def test_training_goes_on_when_nobody_reads_and_letters_are_missing(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    environment = os.environ | {"PYTHONIOENCODING": "latin-1"}
    process = train("max_iterations=6", cwd=tmp_path, stdout=writer, env=environment)
    os.close(writer)
    shown = b""
    while b"rho" not in shown:
        shown += os.read(reader, 1000)
        assert shown and process.poll() is None
    os.close(reader)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    (run,) = (tmp_path / "runs").iterdir()
    assert iterations_of(run) == [1, 2, 3, 4, 5, 6]
