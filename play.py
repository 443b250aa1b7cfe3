"""Play an exported policy in any simulator, by its files alone: `python play.py policy=export/policy.onnx`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.config.values import require_package

    require_package("play.py", "onnxruntime", "export")
    from dualfid_robot.play.launch import launch_play

    launch_play(cfg)


if __name__ == "__main__":
    run(main, "play")
