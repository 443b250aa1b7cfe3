"""What import_robot.py does: import a robot, say what was decided, write it."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from omegaconf import DictConfig, OmegaConf

from dualfid_robot.errors import ConfigError
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.robot import import_robot
from dualfid_robot.settings import parse_settings


def launch_import(cfg: DictConfig) -> None:
    """Import `cfg.source` and write it to `cfg.out`.

    Raises:
        ConfigError: names the setting or the part of the file that is wrong.
    """
    settings = cast(dict[str, object], OmegaConf.to_container(cfg, resolve=True))
    source, out = (Path(str(settings.pop(key))) for key in ("source", "out"))
    if not cfg.source or not cfg.out:
        raise ConfigError("name the robot's file and the one to write: import_robot.py robot.urdf out.xml")
    if out.suffix != ".xml":
        raise ConfigError(f"out={out}: a file that ends in .xml is expected")
    if out.exists() and source.exists() and out.samefile(source):
        raise ConfigError(f"out={out}: is the robot's file itself; name another")
    robot = import_robot(source, parse_settings(ImportOptions, settings, "import_robot"))
    robot.write(out)
    model = robot.compile()
    for line in robot.decisions:
        print(line)
    print(
        f"wrote {out}: {model.nbody - 1} bodies, {model.body_mass.sum():.4g} kg, {model.nv} degrees of freedom,"
        f" {model.nu} actuators"
    )
