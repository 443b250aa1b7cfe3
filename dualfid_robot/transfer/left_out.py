"""Return kept in an engine that was left out of the training. It is return there over return at home, seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from dualfid_robot.evaluate.evaluation import half_width
from dualfid_robot.transfer.matrix import Matrix, MatrixCell, dial_name
from dualfid_robot.transfer.perturbations import Perturbation


@dataclass(frozen=True)
class ReturnKept:
    """What one policy of every checkpoint keeps.

    Attributes:
        dial: λ of the policy.
        at_home, there: (checkpoints,) mean returns.
    """

    dial: float
    at_home: np.ndarray
    there: np.ndarray

    @property
    def each(self) -> np.ndarray:
        """(checkpoints,) return there over return at home. It is NaN where nothing is earned at home."""
        return np.where(self.at_home > 0.0, self.there / np.where(self.at_home > 0.0, self.at_home, 1.0), np.nan)

    @property
    def mean(self) -> float:
        """Mean over the checkpoints."""
        return float(self.each.mean())

    @property
    def half_width(self) -> float:
        """Half of the 95% interval of the mean (Student's t). It is NaN for one checkpoint."""
        return half_width(self.each, 0.95) if len(self.each) > 1 else float("nan")


def returns_kept(matrix: Matrix, cells: Sequence[MatrixCell]) -> list[ReturnKept]:
    """One for each policy, in the unchanged world."""
    found = {
        (cell.checkpoint, cell.dial, cell.simulator): cell.evaluation.mean
        for cell in cells
        if cell.evaluation is not None and cell.perturbation == Perturbation()
    }
    return [
        ReturnKept(
            dial,
            np.array([found[subject.label, dial, subject.home] for subject in matrix.subjects]),
            np.array([found[subject.label, dial, matrix.request.left_out] for subject in matrix.subjects]),
        )
        for dial in matrix.request.dials
    ]


def kept_table(matrix: Matrix, cells: Sequence[MatrixCell]) -> Table:
    """A row for each policy, a column for each checkpoint, and the mean with its interval."""
    homes = ", ".join(dict.fromkeys(subject.home for subject in matrix.subjects))
    title = f"{matrix.task}: return kept in {matrix.request.left_out}, which was left out, of that in {homes}"
    shown = Table(title=title, title_justify="left")
    shown.add_column("policy")
    for letter in matrix.letters.values():
        shown.add_column(f"{letter}: there / home", justify="right")
    shown.add_column("kept, 95% interval over checkpoints", justify="right")
    for kept in returns_kept(matrix, cells):
        each = zip(kept.there, kept.at_home, kept.each, strict=True)
        together = f"{kept.mean:.0%}" if np.isnan(kept.half_width) else f"{kept.mean:.0%} ± {kept.half_width:.0%}"
        shown.add_row(dial_name(kept.dial), *(f"{t:.4g} / {h:.4g} = {k:.0%}" for t, h, k in each), together)
    return shown


def as_json(matrix: Matrix, cells: Sequence[MatrixCell]) -> list[dict[str, Any]]:
    """The same figures for transfer.json. It is empty where no engine is left out."""
    if not matrix.request.left_out:
        return []
    return [
        {
            "dial": kept.dial,
            "engine": matrix.request.left_out,
            "home": kept.at_home.tolist(),
            "there": kept.there.tolist(),
            "kept": kept.each.tolist(),
            "kept_mean": kept.mean,
            "kept_95_half_width": kept.half_width,
        }
        for kept in returns_kept(matrix, cells)
    ]
