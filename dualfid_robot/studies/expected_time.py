"""How long the runs of a study that are still to be done will take."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dualfid_robot.studies.plan import PlannedRun

_START = 10.0  # s of a run's process before its first iteration
_EVALUATION_STEP = 2e-4  # s of an environment step in an evaluation, the policy's part included


def expected_seconds(run: PlannedRun, finished: Mapping[PlannedRun, float]) -> float:
    """Wall seconds of a run: the mean over runs that differ from it only by their seed. Without any, an upper estimate.

    Before any such run has finished, seconds of the budget count as wall seconds. That is too much where E_high has a
    price above 1, and too little where a price is below 1.

    Args:
        finished: wall seconds of runs that have finished.
    """
    alike = [seconds for other, seconds in finished.items() if _kind(other) == _kind(run)]
    if alike:
        return sum(alike) / len(alike)
    return _START + run.budget + _EVALUATION_STEP * run.evaluation_steps


def time_line(pending: Sequence[PlannedRun], finished: Mapping[PlannedRun, float], at_once: int) -> str:
    """What the pending runs will take, for a reader.

    Args:
        at_once: runs at the same time.
    """
    hours = sum(expected_seconds(run, finished) for run in pending) / 3600
    return f"about {hours:.2g} h of one core, so {hours / at_once:.2g} h with {at_once} run(s) at once"


def runs_at_once(launcher: str, jobs: int) -> int:
    """How many runs a launcher starts together; 1 for one that another machine's scheduler decides for.

    Args:
        launcher: its name.
        jobs: its setting `n_jobs`; negative: counted from the number of cores, -1 for all.
    """
    if launcher != "joblib":
        return 1
    return jobs if jobs > 0 else max(len(os.sched_getaffinity(0)) + 1 + jobs, 1)


def _kind(run: PlannedRun) -> tuple[str, str, str, float, bool, int]:
    return run.task, run.method, run.gap, run.budget, run.reference, run.evaluation_steps
