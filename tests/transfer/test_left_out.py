"""Return kept in an engine that was left out of the training."""

from __future__ import annotations

import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from omegaconf import OmegaConf
from rich.console import Console
from scipy import stats

from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.evaluation import Evaluation
from dualfid_robot.transfer.launch import parse_request
from dualfid_robot.transfer.left_out import as_json, kept_table, returns_kept
from dualfid_robot.transfer.matrix import Matrix, MatrixCell, TransferRequest
from dualfid_robot.transfer.perturbations import parse_perturbations

Make = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def matrix_of(*checkpoints: Path, left_out: str = "pybullet", **changes: object) -> Matrix:
    settings: dict[str, object] = {
        **{"simulators": (), "dials": (0.0, 1.0), "perturbations": parse_perturbations([])},
        **{"num_envs": 4, "seed": 3, "left_out": left_out},
    }
    return Matrix(TransferRequest(checkpoints, **(settings | changes)))  # type: ignore[arg-type]


def cell(matrix: Matrix, subject: int, dial: float, simulator: str, value: float) -> MatrixCell:
    evaluation = Evaluation(np.array([value - 1, value + 1]), np.ones(2), np.ones(2, bool), 0, {}, {})
    return MatrixCell(matrix.subjects[subject].label, dial, simulator, matrix.request.perturbations[0], evaluation)


def test_return_kept_by_hand(make_checkpoint: Make) -> None:
    """Three seeds keep 50, 60 and 70 % with the base policy: 60 % and Student's interval over the three."""
    matrix = matrix_of(*(make_checkpoint(name, seed=seed) for seed, name in enumerate("abc")))
    assert matrix.request.simulators == ("mujoco", "pybullet")
    there = {0.0: (50, 60, 70), 1.0: (30, 30, 30)}
    cells = [cell(matrix, k, dial, "mujoco", 100) for k in range(3) for dial in there]
    cells += [
        cell(matrix, k, dial, "pybullet", value) for dial, values in there.items() for k, value in enumerate(values)
    ]
    base, adapted = returns_kept(matrix, cells)
    low, high = stats.t.interval(0.95, 2, 0.6, stats.sem([0.5, 0.6, 0.7]))
    assert base.each.tolist() == pytest.approx([0.5, 0.6, 0.7]) and base.mean == pytest.approx(0.6)
    assert (base.mean - base.half_width, base.mean + base.half_width) == pytest.approx((low, high))
    assert adapted.mean == pytest.approx(0.3) and adapted.half_width == pytest.approx(0)
    output = io.StringIO()
    Console(width=200, file=output).print(kept_table(matrix, cells))
    assert "60 / 100 = 60%" in output.getvalue() and f"60% ± {high - 0.6:.0%}" in output.getvalue()
    assert as_json(matrix, cells)[0]["kept"] == pytest.approx([0.5, 0.6, 0.7])


def test_one_seed_has_no_interval_and_nothing_earned_is_nothing_kept(make_checkpoint: Make) -> None:
    matrix = matrix_of(make_checkpoint("a"), dials=(1.0,))
    (kept,) = returns_kept(matrix, [cell(matrix, 0, 1.0, "mujoco", 10), cell(matrix, 0, 1.0, "pybullet", 5)])
    assert kept.mean == 0.5 and np.isnan(kept.half_width)
    (kept,) = returns_kept(matrix, [cell(matrix, 0, 1.0, "mujoco", -10), cell(matrix, 0, 1.0, "pybullet", 5)])
    assert np.isnan(kept.mean)


@pytest.mark.parametrize(
    ("left_out", "overrides", "message"),
    [
        (
            "mujoco",
            (),
            r"^leave_out=mujoco: cannot be left out, simulator.low.mujoco_reduced trains in mujoco_reduced$",
        ),
        ("mujoco_warp", (), r"^leave_out=mujoco_warp: cannot be left out, simulator.low.mujoco_reduced trains in"),
        ("havok", (), r"^leave_out=havok: allowed are \['mujoco', "),
        (
            "physx",
            ("simulator.high.changes.gravity=2",),
            r"^leave_out=physx: .* was trained with mujoco with gravity=2$",
        ),
    ],
)
def test_what_cannot_be_left_out(
    left_out: str, overrides: tuple[str, ...], message: str, make_checkpoint: Make
) -> None:
    with pytest.raises(ConfigError, match=message):
        matrix_of(make_checkpoint("a", "Cartpole", *overrides), left_out=left_out)


def test_an_engine_that_the_allocation_never_used_can_be_left_out(make_checkpoint: Make) -> None:
    """High-only names an E_low all the same."""
    path = make_checkpoint("a", "Cartpole", "allocation=high_only", "simulator/low=pybullet")
    found = matrix_of(path)
    assert found.subjects[0].home == "mujoco"
    assert found.subject_lines()[0].endswith(": trained in mujoco (high), 96 samples")
    low = make_checkpoint("b", "Cartpole", "allocation=low_only", "simulator/high=physx")
    found = matrix_of(low, left_out="physx")
    assert found.subjects[0].home == "mujoco_reduced"
    assert found.subject_lines()[0].endswith(": trained in mujoco_reduced (low), 96 samples")


def test_the_request(make_checkpoint: Make) -> None:
    path = make_checkpoint("a")
    settings = OmegaConf.load(CONFIG_DIR / "transfer.yaml")
    for changes, expected in (
        ({}, ("mujoco", "mujoco_reduced")),
        ({"leave_out": "physx"}, ()),
        ({"leave_out": "physx", "simulators": ["pybullet"]}, ("pybullet",)),
    ):
        found = parse_request(OmegaConf.merge(settings, {"checkpoint": str(path)}, changes))  # type: ignore[arg-type]
        assert found.simulators == expected and found.left_out == changes.get("leave_out", "")


@pytest.mark.slow
def test_the_command(make_checkpoint: Make, run_script: Run, tmp_path: Path) -> None:
    paths = [make_checkpoint(name, "Cartpole", "task.env.episodeLength=12", seed=k) for k, name in enumerate("ab")]
    given = f"checkpoint=[{','.join(map(str, paths))}]"
    result = run_script("transfer.py", given, "leave_out=pybullet", "num_envs=4", "dial=[]")
    assert result.returncode == 0, result.stderr
    assert "return kept in pybullet, which was left out, of that in mujoco" in result.stdout
    report = json.loads((tmp_path / "a" / "transfer" / "transfer.json").read_text())
    assert [entry["dial"] for entry in report["left_out"]] == [0.0, 1.0]
    for entry in report["left_out"]:
        assert entry["kept"] == pytest.approx([1.0, 1.0], abs=0.02)  # the pole falls alike in all engines
    refused = run_script("transfer.py", given, "leave_out=mujoco_reduced", "num_envs=4")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1, refused.stderr
