"""Look at a task before training it: `python check_task.py task=Ant`."""

from dualfid_robot.cli import check

if __name__ == "__main__":
    check()
