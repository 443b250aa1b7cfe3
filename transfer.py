"""Policies × simulators × perturbations: `python transfer.py checkpoint=runs/... simulators=[mujoco,pybullet]`."""

from __future__ import annotations

import re
import sys

from omegaconf import DictConfig

from dualfid_robot.config.command_line import run

LISTS = ("checkpoint", "simulators", "policies", "dial", "perturb")


def main(cfg: DictConfig) -> None:
    from dualfid_robot.transfer.launch import launch_transfer

    launch_transfer(cfg)


def quoted(argument: str) -> str:
    """`perturb=[friction=0.5]` with its elements in quotes, as Hydra wants texts that hold an equals sign."""
    key, separator, value = argument.partition("=")
    if key != "perturb" or "=" not in value or "'" in value or '"' in value:
        return argument
    return key + separator + re.sub(r"[^,\[\]]+", lambda element: f"'{element[0].strip()}'", value)


if __name__ == "__main__":
    sys.argv[1:] = [quoted(argument) for argument in sys.argv[1:]]
    run(main, "transfer", lists=LISTS)
