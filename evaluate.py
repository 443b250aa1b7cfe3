"""Evaluate a checkpoint in any simulator: `python evaluate.py checkpoint=runs/... simulator=pybullet`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.evaluate.launch import launch_evaluation

    launch_evaluation(cfg)


if __name__ == "__main__":
    run(main, "evaluate")
