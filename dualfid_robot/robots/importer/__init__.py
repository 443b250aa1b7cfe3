"""Robots from other descriptions: URDF, or an MJCF that lacks what a simulation needs (docs/your_own_robot.md)."""

from __future__ import annotations

from dualfid_robot.robots.importer.imported import ImportedRobot
from dualfid_robot.robots.importer.options import ImportOptions
from dualfid_robot.robots.importer.robot import import_mjcf, import_robot, import_urdf

__all__ = ["ImportOptions", "ImportedRobot", "import_mjcf", "import_robot", "import_urdf"]
