"""Make an MJCF to train with from a URDF, or from another MJCF: `python import_robot.py robot.urdf out.xml`."""

from __future__ import annotations

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run


def main(cfg: DictConfig) -> None:
    from dualfid_robot.robots.importer.launch import launch_import

    launch_import(cfg)


if __name__ == "__main__":
    run(main, "import_robot", lists=("package_path",), positional=("source", "out"))
