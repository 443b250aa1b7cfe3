"""The robots that the properties are measured with, and the quantities of their files that closed forms need."""

from __future__ import annotations

from pathlib import Path

from dualfid_robot.config.machine import ASSETS
from dualfid_robot.robots.model import RobotModel

DT = 1 / 60
"""Control period of the measurements, s."""
GRAVITY = 9.81

OWN = Path(__file__).parent / "assets"
"""The folder of the robots that exist for the measurements alone."""

ANT = RobotModel(ASSETS / "ant.xml", ("foot_1", "foot_2", "foot_3", "foot_4"))
CROOKED = RobotModel(OWN / "crooked.xml")
BENCH = RobotModel(OWN / "bench.xml")
SERVO = RobotModel(OWN / "servo.xml")
VELOCITY = RobotModel(OWN / "velocity.xml")
LIMITED = RobotModel(OWN / "limited.xml")
DC_MOTOR = RobotModel(OWN / "dc_motor.xml")
STIFF = RobotModel(OWN / "stiff.xml")
STATEFUL = RobotModel(OWN / "stateful.xml")
WORKSHOP = RobotModel(OWN / "workshop.xml", ("drawer", "ball", "block"))
DELAYED = RobotModel(OWN / "delayed.xml")
DRONE = RobotModel(OWN / "drone.xml")
SPRING = RobotModel(OWN / "spring.xml")
SLED = RobotModel(OWN / "sled.xml", ("sled",))
