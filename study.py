"""Run an experiment plan on all cores and report on it: `python study.py study=cartpole_small`."""

from dualfid_robot.cli import study

if __name__ == "__main__":
    study()
