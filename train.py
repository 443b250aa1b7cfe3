"""Train a policy with two simulators: `python train.py task=Ant`; evaluate it: `test=True checkpoint=...`."""

from dualfid_robot.cli import train

if __name__ == "__main__":
    train()
