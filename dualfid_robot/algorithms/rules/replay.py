"""ρ of another run, in another order."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np

from dualfid_robot.algorithms.rules import rule
from dualfid_robot.algorithms.signals import Signals
from dualfid_robot.errors import ConfigError
from dualfid_robot.settings import require_integer, require_number

_KEY = "allocation/rho"


@rule("replay")
@dataclass(frozen=True)
class Replay:
    """The low shares of a finished run, permuted: the same mean, but at no iteration for a reason.

    What a rule gains over its own replay is the worth of what it measures.

    Attributes:
        file: metrics.jsonl of the run.
        seed: of the permutation.
        values: ρ over this run, spread evenly over its progress.
    """

    requires: ClassVar[frozenset[str]] = frozenset()
    file: str
    seed: int
    values: tuple[float, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_integer("seed", self.seed, 0)
        values = np.random.default_rng(self.seed).permutation(_shares(self.file))
        object.__setattr__(self, "values", tuple(values.tolist()))

    def __call__(self, signals: Signals) -> float:
        index = int(signals.progress * len(self.values) + 1e-6)  # i / n · n may lie just below i
        return self.values[min(index, len(self.values) - 1)]


def _shares(file: str) -> list[float]:
    """ρ of every iteration that a run logged.

    Raises:
        ConfigError: there is no such file, or it is not the log of a run.
    """
    try:
        lines = Path(file).expanduser().read_text("utf-8").splitlines()
        values = [float(json.loads(line)[_KEY]) for line in lines]
    except OSError as error:
        raise ConfigError(f"file={file}: must be the metrics.jsonl of a finished run: {error.strerror}") from error
    except KeyError as error:
        raise ConfigError(f"file={file}: must be the metrics.jsonl of a run: a line has no {_KEY}") from error
    except (ValueError, TypeError) as error:
        raise ConfigError(f"file={file}: must be the metrics.jsonl of a run: {error}") from error
    if not values:
        raise ConfigError(f"file={file}: must be the metrics.jsonl of a finished run, but is empty")
    for value in values:
        require_number(f"file={file}: {_KEY}", value, 0.0, 1.0)
    return values
