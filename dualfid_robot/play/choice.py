"""What play.py plays: an export, a checkpoint, a task's newest run, or the policy that ships with the program."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.errors import ConfigError
from dualfid_robot.runs.checkpoint import fitting, load_checkpoint, resolve_checkpoint

SHIPPED = "shipped"
POLICIES = ASSETS / "policies"
"""A folder for each task whose policy ships with the program."""

_ROLLING = ("last", "iteration_")  # names of checkpoints that are not a run's best


@dataclass(frozen=True)
class Choice:
    """What is played.

    Attributes:
        path: of the export or of the checkpoint.
        is_export: which of the two it is.
        title: of its task or its folder, for the name of a video.
        announcement: one line that says what was chosen.
        state: what the checkpoint holds.
    """

    path: Path
    is_export: bool
    title: str
    announcement: str
    state: Mapping[str, Any] = field(default_factory=dict)


def choose(cfg: DictConfig) -> Choice:
    """What the settings task, checkpoint and policy mean together.

    Raises:
        ConfigError: they exclude each other, or there is nothing to play.
    """
    task = str(cfg.task.name) if "task" in cfg else ""
    if cfg.policy and cfg.checkpoint:
        raise ConfigError(f"policy={cfg.policy}: leave it or checkpoint={cfg.checkpoint} out")
    if cfg.policy and cfg.policy != SHIPPED:
        path = Path(str(cfg.policy))
        folder = path.parent if path.suffix == ".onnx" else path
        return Choice(path, True, folder.absolute().name, f"playing the export {folder}")
    if cfg.checkpoint:
        choice = _of_checkpoint(resolve_checkpoint(Path(str(cfg.checkpoint))), "")
        if task not in ("", choice.title):
            raise ConfigError(f"checkpoint={choice.path}: was trained on task={choice.title}, not on task={task}")
        return choice
    if cfg.policy != SHIPPED and (newest := _newest(task)) is not None:
        other = f"; policy={SHIPPED} plays the one that ships" if task and (POLICIES / task).is_dir() else ""
        return _of_checkpoint(newest, "the newest run, ", other)
    shipped = shipped_policies()
    if not task:
        raise ConfigError(f"task: name one of {shipped}, whose policies ship; or name checkpoint=… or policy=…")
    if task not in shipped:
        raise ConfigError(f"task={task}: has no run under runs/, and no policy ships for it; these ship: {shipped}")
    return Choice(POLICIES / task, True, task, f"playing the policy of {task} that ships with this program")


def _of_checkpoint(path: Path, what: str, further: str = "") -> Choice:
    state = load_checkpoint(path)
    with fitting(path):
        return Choice(path, False, state["task"], f"playing {what}{path}{further}", state)


def shipped_policies() -> list[str]:
    """The tasks whose policies ship with the program."""
    return sorted(path.parent.name for path in POLICIES.glob("*/policy.onnx"))


def _newest(task: str) -> Path | None:
    """The best checkpoint of a task's newest run, or else its last one. It is None where there is no run."""
    from dualfid_robot.runs.run_log import newest_checkpoint  # imports TensorBoard

    with contextlib.suppress(ConfigError):  # there is none
        last = newest_checkpoint(None, task or None)
        best = [path for path in last.parent.glob("*.pth") if not path.stem.startswith(_ROLLING)]
        return best[0] if best else last
    return None
