"""Fit a task's low simulator to its high one: `python calibrate.py task=Ant`."""

from dualfid_robot.cli import calibrate

if __name__ == "__main__":
    calibrate()
