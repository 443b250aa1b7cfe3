"""The matrix from checkpoints to files, and every refusal."""

from __future__ import annotations

import csv
import importlib.util
import io
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from rich.console import Console
from scipy import stats

from dualfid_robot.cli import quoted
from dualfid_robot.config.engines import simulator_settings
from dualfid_robot.config.machine import CONFIG_DIR
from dualfid_robot.errors import ConfigError
from dualfid_robot.evaluate.agents import policy_agent
from dualfid_robot.evaluate.evaluation import Evaluation, evaluate
from dualfid_robot.runs.saved_policy import load_policy
from dualfid_robot.transfer.launch import parse_request
from dualfid_robot.transfer.matrix import Matrix, MatrixCell, TransferRequest
from dualfid_robot.transfer.perturbations import Perturbation, parse_perturbations
from dualfid_robot.transfer.report import dial_curves, heat_map, mean_returns, tables, unsupported_lines, write_report

ROOT = Path(__file__).parents[2]

Make = Callable[..., Path]
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def request(*checkpoints: Path, **changes: object) -> TransferRequest:
    settings: dict[str, object] = {
        "simulators": ("mujoco", "mujoco_reduced"),
        "dials": (0.0, 0.5, 1.0),
        "perturbations": parse_perturbations(["mass=1.5"]),
        "num_envs": 5,
        "seed": 3,
    }
    return TransferRequest(checkpoints, **(settings | changes))  # type: ignore[arg-type]


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for axes in figure.axes for text in axes.texts]


def test_one_checkpoint(make_checkpoint: Make, tmp_path: Path) -> None:
    """Every cell once, in order; files that say the same; figures computed from the returns by hand."""
    path = make_checkpoint("run")
    matrix = Matrix(request(path))
    cells = list(matrix.cells())
    assert len(cells) == len(matrix) == 3 * 2 * 2
    expected = [
        (name, world, dial)
        for name in ("mujoco", "mujoco_reduced")
        for world in ("nominal", "mass=1.5")
        for dial in (0.0, 0.5, 1.0)
    ]
    assert [(cell.simulator, str(cell.perturbation), cell.dial) for cell in cells] == expected
    assert mean_returns(matrix, cells).shape == (1, 3, 2, 2)

    written = write_report(matrix, cells, matrix.random_returns(), tmp_path / "out")
    assert sorted(file.name for file in written) == ["dial.png", "heatmap.png", "transfer.csv", "transfer.json"]
    report = json.loads((tmp_path / "out" / "transfer.json").read_text())
    assert report["task"] == "Cartpole" and report["num_envs"] == 5 and report["dials"] == [0.0, 0.5, 1.0]
    assert report["checkpoints"][0]["label"] == "run"
    assert report["checkpoints"][0]["trained_in"] == {
        "low": "mujoco_reduced",
        "high": "mujoco",
    }
    assert [contract["problems"] for contract in report["contracts"]] == [[], []]
    assert report["simulators"]["mujoco_reduced"]["substeps"] == 2
    with (tmp_path / "out" / "transfer.csv").open() as file:
        rows = list(csv.DictReader(file))
    for cell, row, entry in zip(cells, rows, report["cells"], strict=True):
        returns = np.array(entry["returns"])
        assert cell.evaluation is not None
        np.testing.assert_array_equal(returns, cell.evaluation.returns)
        low, high = stats.t.interval(0.95, 4, returns.mean(), stats.sem(returns))
        assert entry["return_95_low"] == pytest.approx(low) and entry["return_95_high"] == pytest.approx(high)
        assert entry["return_median"] == np.median(returns)
        assert (row["policy"], row["simulator"], row["perturbation"]) == (
            entry["policy"],
            entry["simulator"],
            entry["perturbation"],
        )
        assert float(row["return_mean"]) == entry["return_mean"] == pytest.approx(returns.mean())
        assert float(row["episode_length"]) == cell.evaluation.lengths.mean()
        assert float(row["terminated"]) == cell.evaluation.terminated.mean()
    assert {entry["policy"] for entry in report["cells"]} == {"base", "dial 0.5", "adapted"}
    for first in range(0, len(cells), 3):
        base, *others = report["cells"][first : first + 3]
        assert "versus_base" not in base
        for entry, row in zip(others, rows[first + 1 : first + 3], strict=True):
            paired = stats.ttest_rel(entry["returns"], base["returns"])
            low, high = paired.confidence_interval(0.95)
            assert (entry["versus_base_95_low"], entry["versus_base_95_high"]) == pytest.approx((low, high))
            assert float(row["versus_base"]) == entry["versus_base"] == pytest.approx((low + high) / 2)
    for name in ("heatmap.png", "dial.png"):
        assert np.ptp(imageio.imread(tmp_path / "out" / name)) > 100


def test_cells_are_evaluations_from_the_same_starts(make_checkpoint: Make) -> None:
    """Against the evaluation itself, on a pool that is seeded in the same way: to the bit in MuJoCo."""
    path = make_checkpoint("run")
    cells = list(Matrix(request(path, dials=(0.0, 1.0), simulators=("mujoco",))).cells())
    experiment, policy = load_policy(path)
    for cell, name in zip(cells[:2], ("base", "adapted"), strict=True):
        pool = experiment.make_pool(simulator_settings("mujoco", experiment.settings["task"]), 5, seed=3)
        pool.seed(3)
        alone = evaluate(policy_agent(policy, name), pool)  # type: ignore[arg-type]
        pool.simulator.close()
        assert cell.evaluation is not None
        np.testing.assert_array_equal(cell.evaluation.returns, alone.returns)
        assert str(cell.perturbation) == "nominal"
    assert not np.array_equal(cells[0].evaluation.returns, cells[2].evaluation.returns)  # type: ignore[union-attr]


def test_several_checkpoints_and_what_is_not_supported(make_checkpoint: Make) -> None:
    """The train × test matrix; a cell that an engine cannot do is marked with the reason, and the others are run."""
    first, second = make_checkpoint("a"), make_checkpoint("b", "Cartpole", "task.env.resetDist=2.5", seed=1)
    matrix = Matrix(
        request(
            first,
            second,
            simulators=("mujoco_reduced", "pybullet"),
            dials=(0.5,),
            perturbations=parse_perturbations(["slope=5"]),
        )
    )
    assert matrix.differing == ["task.env.resetDist"] and len(matrix.contracts) == 4
    cells = list(matrix.cells())
    returns = mean_returns(matrix, cells)
    assert returns.shape == (2, 1, 2, 2)
    assert np.isnan(returns[:, :, 1, 1]).all() and np.isnan(returns).sum() == 2
    assert [line.split(": ")[0] for line in unsupported_lines(cells)] == ["pybullet, slope=5"]
    assert "engine pybullet cannot set it" in unsupported_lines(cells)[0]
    output = io.StringIO()
    random_returns = matrix.random_returns()
    assert set(random_returns) == {"mujoco_reduced", "pybullet"}
    console = Console(width=80, file=output)
    (whole,) = tables(matrix, cells, random_returns, console)
    console.print(whole)
    assert output.getvalue().count("\n  B ") == 2
    assert output.getvalue().count("not supported") == 2 and output.getvalue().count("pybullet") == 1
    assert f" {returns[0, 0, 0, 0]:.4g} ± " in output.getvalue() and " random " in output.getvalue()
    narrow = tables(matrix, cells, random_returns, Console(width=40))
    assert [len(one.columns) for one in narrow] == [4, 4] and len(whole.columns) == 5
    figure = heat_map(matrix, cells, random_returns)
    least, _ = figure.axes[0].images[0].get_clim()
    assert least == pytest.approx(sum(random_returns.values()) / 2)
    shown = texts(figure)
    assert len(shown) == 8 and shown.count("—") == 2
    assert shown[0] == f"{returns[0, 0, 0, 0]:.4g}"


def test_curves_show_every_engine_and_world(make_checkpoint: Make) -> None:
    matrix = Matrix(request(make_checkpoint("run"), num_envs=2))
    cells = [
        MatrixCell(
            "run", dial, name, world, Evaluation(np.array([dial, dial + 2]), np.ones(2), np.ones(2, bool), 0, {}, {})
        )
        for name in matrix.request.simulators
        for world in matrix.request.perturbations
        for dial in matrix.request.dials
    ]
    figure = dial_curves(matrix, cells)
    assert len(figure.axes) == 2
    for axes in figure.axes:
        assert len(axes.lines) == 2
        np.testing.assert_allclose(np.asarray(axes.lines[0].get_xydata()), np.array([[0, 1], [0.5, 1.5], [1, 2]]))


def test_a_contract_that_is_broken_stops_everything(make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    from dualfid_robot.transfer import contract

    monkeypatch.setattr(contract, "STATE_TOLERANCE", -1.0)
    with pytest.raises(ConfigError, match=r"^simulators=mujoco: contract broken: default position of joint"):
        Matrix(request(make_checkpoint("run")))


def test_checkpoints_of_two_tasks_are_refused(make_checkpoint: Make) -> None:
    first, second = make_checkpoint("a"), make_checkpoint("b", "Quadcopter")
    with pytest.raises(ConfigError, match=r"^checkpoint=.*: was trained on task=Quadcopter, and .* on task=Cartpole"):
        Matrix(request(first, second))


def test_an_unknown_engine_is_refused(make_checkpoint: Make) -> None:
    with pytest.raises(ConfigError, match=r"^simulators=havok: allowed are \['mujoco', 'mujoco_reduced', "):
        Matrix(request(make_checkpoint("run"), simulators=("havok",)))


def test_an_engine_that_is_not_installed_is_refused(make_checkpoint: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "sapien" else found(name))
    with pytest.raises(ConfigError, match=r"^simulators=physx: engine=physx: not installed; pip install"):
        Matrix(request(make_checkpoint("run"), simulators=("mujoco_reduced", "physx")))


def test_values_that_a_perturbation_cannot_have_are_refused_before_anything_runs(make_checkpoint: Make) -> None:
    with pytest.raises(ConfigError, match=r"^perturb=mass=0: "):
        Matrix(request(make_checkpoint("run"), perturbations=(Perturbation(), Perturbation("mass", 0.0))))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"checkpoint": ""}, "checkpoint: name one or several"),
        ({"checkpoint": ["nowhere"]}, "checkpoint=nowhere: no such file"),
        ({"simulators": []}, "simulators: name files of cfg/simulator"),
        ({"policies": "best"}, "policies=best: allowed are ['adapted', 'base']"),
        ({"dial": [0, 2]}, "dial=2: must be a number in [0, 1.5]"),
        ({"dial": "half"}, "dial=half: must be a number in [0, 1.5]"),
        ({"policies": [], "dial": []}, "policies=[] dial=[]: nothing to evaluate"),
        ({"perturb": ["wind=3"]}, "perturb=wind=3: allowed are ['friction'"),
        ({"num_envs": 0}, "num_envs=0: must be a whole number of at least 1"),
        ({"num_envs": "many"}, "num_envs=many: must be a whole number of at least 1"),
        ({"seed": -1}, "seed=-1: must be a whole number from 0 to "),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, object], message: str, make_checkpoint: Make) -> None:
    settings = OmegaConf.load(CONFIG_DIR / "transfer.yaml")
    with pytest.raises(ConfigError) as error:
        parse_request(OmegaConf.merge(settings, {"checkpoint": str(make_checkpoint("run"))}, changes))  # type: ignore[arg-type]
    assert str(error.value).startswith(message)


def test_the_defaults(make_checkpoint: Make) -> None:
    path = make_checkpoint("run")
    settings = OmegaConf.merge(OmegaConf.load(CONFIG_DIR / "transfer.yaml"), {"checkpoint": str(path.parent.parent)})
    found = parse_request(settings)  # type: ignore[arg-type]
    assert found.checkpoints == (path,)
    assert found.dials == (0.0, 1.0)
    assert found.perturbations == (Perturbation(),) and found.num_envs == 64


def test_perturbations_are_quoted_for_hydra() -> None:
    assert quoted("perturb=[friction=0.5,slope=-5]") == "perturb=['friction=0.5','slope=-5']"
    assert quoted("perturb=mass=1.2,latency=1") == "perturb='mass=1.2','latency=1'"
    for other in ("perturb=[]", "perturb=['mass=1']", "out=a=b", "perturb=[mass]"):
        assert quoted(other) == other


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("perturb=[wind=3,mass=1]",), "error: perturb=wind=3: allowed are ['friction'"),
        (("num_env=3",), "error: num_env: no such setting; did you mean num_envs?"),
    ],
)
def test_one_line_and_status_2(
    arguments: tuple[str, ...], message: str, make_checkpoint: Make, run_script: Run, tmp_path: Path
) -> None:
    path = make_checkpoint("run")
    result = run_script("transfer.py", f"checkpoint={path}", *arguments)
    lines = result.stderr.strip().splitlines()
    assert result.returncode == 2, result.stderr
    assert len(lines) == 1 and lines[0].startswith(message), result.stderr
    assert sorted(file.name for file in tmp_path.iterdir()) == ["run"]


@pytest.mark.slow
def test_the_command_in_four_engines(make_checkpoint: Make, run_script: Run, tmp_path: Path) -> None:
    path = make_checkpoint("run", "Cartpole", "task.env.episodeLength=12")  # no pole falls so soon
    result = run_script(
        "transfer.py",
        f"checkpoint={path.parent.parent}",
        "simulators=mujoco,mujoco_reduced,pybullet,physx",
        "perturb=[slope=5]",
        "policies=[base]",
        "dial=[0.5]",
        "num_envs=8",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count(": contract holds: ") == 4
    assert "pybullet, slope=5: not supported: engine pybullet cannot set it" in result.stdout
    report = json.loads((tmp_path / "run" / "transfer" / "transfer.json").read_text())
    cells = report["cells"]
    assert len(cells) == 2 * 4 * 2
    assert sum("unsupported" in cell for cell in cells) == 2
    nominal = {
        (cell["simulator"], cell["dial"]): np.array(cell["returns"])
        for cell in cells
        if cell["perturbation"] == "nominal"
    }
    # A cart and a pole are the same in all of them, but for the step h of symplectic Euler, 1/480 s and else 1/120 s:
    # the error of a displacement after time t is of h/t = 3%, and what a step costs is the square of an angle.
    for name in ("mujoco_reduced", "pybullet", "physx"):
        for dial in (0.0, 0.5):
            np.testing.assert_allclose(12 - nominal[name, dial], 12 - nominal["mujoco", dial], rtol=0.1)
    assert torch.isfinite(torch.tensor([cell["return_mean"] for cell in cells if "return_mean" in cell])).all()
