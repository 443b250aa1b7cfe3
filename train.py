"""Train a policy with two simulators: `python train.py task=Ant`; evaluate it: `test=True checkpoint=...`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.runners.entry import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.runners.launch import launch

    launch(cfg)


if __name__ == "__main__":
    run(main, "config")
