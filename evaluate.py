"""Evaluate a checkpoint in any simulator: `python evaluate.py checkpoint=runs/... simulator=pybullet`."""

from dualfid_robot.cli import evaluate

if __name__ == "__main__":
    evaluate()
