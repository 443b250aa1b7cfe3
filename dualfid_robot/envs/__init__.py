"""Tasks, pools of environments, and the dual environment."""

from dualfid_robot.robots.model import RobotModel

__all__ = ["RobotModel"]
