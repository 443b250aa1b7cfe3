"""Train a policy with two simulators: `python train.py task=Ant`; evaluate it: `test=True checkpoint=...`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.train.launch import launch

    launch(cfg)


if __name__ == "__main__":
    run(main, "config")
