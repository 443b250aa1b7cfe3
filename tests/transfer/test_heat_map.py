"""What a reader sees of a transfer: a table without exponents, and a heat map of which nothing is cut off."""

from __future__ import annotations

import io
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from dualfid_robot.evaluate.evaluation import Evaluation
from dualfid_robot.transfer.perturbations import parse_perturbations
from dualfid_robot.transfer.report import heat_map, tables

RANDOM = {"mujoco": -30.0, "mujoco_reduced": -12.0, "pybullet": 40.0}


def matrix_of(simulators: tuple[str, ...]) -> tuple[Any, list[Any]]:
    """A request of two policies in three worlds, and its cells with returns of about 4,000."""
    worlds = parse_perturbations(["mass=1.5", "friction=0.5"])
    request = SimpleNamespace(dials=(0.0, 1.0), simulators=simulators, perturbations=worlds, num_envs=16)
    matrix = SimpleNamespace(task="Ant", request=request, subjects=[SimpleNamespace(label="run")], letters={"run": "A"})
    generator, zeros = np.random.default_rng(0), np.zeros(16)
    cells = [
        SimpleNamespace(
            checkpoint="run",
            dial=dial,
            simulator=name,
            perturbation=world,
            evaluation=Evaluation(generator.normal(4000.0, 400.0, 16), zeros + 900, zeros > 1, 0, {}, {}, {}),
        )
        for dial in request.dials
        for name in simulators
        for world in worlds
    ]
    return matrix, cells


def test_the_table_has_no_exponents_and_fits_into_80_columns() -> None:
    matrix, cells = matrix_of(tuple(RANDOM))
    console = Console(width=80, file=io.StringIO())
    for table in tables(matrix, cells, RANDOM, console):
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "e+" not in text and max(map(len, text.splitlines())) <= 80
    assert text.count("±") == 1 + len(cells)


@pytest.mark.parametrize("engines", [1, 2, 3])
def test_nothing_of_the_heat_map_is_cut_off(engines: int) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    matrix, cells = matrix_of(tuple(RANDOM)[:engines])
    figure = heat_map(matrix, cells, RANDOM)
    FigureCanvasAgg(figure).draw()
    box = figure.get_tightbbox()
    width, height = figure.get_size_inches()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width and box.y1 <= height
