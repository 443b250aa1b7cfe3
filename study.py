"""Run an experiment plan on all cores and report on it: `python study.py study=ant_small`."""

from __future__ import annotations

import sys

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run
from dualfid_robot.errors import ConfigError
from dualfid_robot.studies.launcher import require_launcher


def main(cfg: DictConfig) -> None:
    from dualfid_robot.studies.launcher import launch_study

    launch_study(cfg)


if __name__ == "__main__":
    try:
        require_launcher(sys.argv[1:])
    except ConfigError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    run(main, "study")
