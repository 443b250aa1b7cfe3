"""Policies × simulators × perturbations: `python transfer.py checkpoint=runs/... simulators=[mujoco,pybullet]`."""

from dualfid_robot.cli import transfer

if __name__ == "__main__":
    transfer()
