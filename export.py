"""Export a checkpoint for robots and players: `python export.py checkpoint=runs/... format=onnx,torchscript,cpp`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.export.launch import launch_export

    launch_export(cfg)


if __name__ == "__main__":
    run(main, "export", lists=("format", "simulators"))
