"""Look at a task before training it: `python check_task.py task=Ant`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.evaluate.check_task import launch_check

    launch_check(cfg)


if __name__ == "__main__":
    run(main, "check_task")
