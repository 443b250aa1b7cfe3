"""Metadata of robots that no policy was trained on, and robot files with their elements in another order."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dualfid_robot.export.robot_description import describe_actuators, describe_joints, describe_robot
from dualfid_robot.onboard.metadata import (
    SCHEMA_VERSION,
    Action,
    Lora,
    Metadata,
    Package,
    PolicyInfo,
    Sample,
    Timing,
    Training,
    Verification,
    Visited,
)
from dualfid_robot.robots.model import RobotModel


def metadata_of(robot: RobotModel, contact_bodies: Sequence[str] = (), control_dt: float = 1 / 60) -> Metadata:
    """Metadata of a policy without an observation, for what a simulated robot reads of it."""
    actuators = describe_actuators(robot)
    n = len(actuators)
    return Metadata(
        schema_version=SCHEMA_VERSION,
        package=Package("0", ""),
        task="Nothing",
        robot=describe_robot(robot, contact_bodies, robot.path.name),
        joints=describe_joints(robot),
        actuators=actuators,
        timing=Timing(control_dt, control_dt / 8, 8),
        observation=(),
        action=Action("force", (1.0,) * n, (0.0,) * n, 1.0, False),
        commands=(),
        memory=(),
        reward=(),
        episode_length=100,
        policy=PolicyInfo("base", Lora(1, 1.0, False), None, True, 0, n, 18, "float32"),
        training=Training(0, 0, 0, 0.0, "high", {}, {}, (), {}),
        evaluations={},
        visited=Visited((), (), ()),
        sample=Sample((), ()),
        verification=Verification(0.0, None, None, 0.0, 0.0, 0, 0),
    )


def permuted(path: Path, folder: Path, seed: int) -> Path:
    """A copy of an MJCF whose bodies, joints in a body and actuators stand in another order."""
    generator = np.random.default_rng(seed)
    tree = ElementTree.parse(path)
    for parent in tree.getroot().iter():
        for kind in ("body", "motor", "position", "general"):
            if parent.tag != "default":
                _shuffle(parent, kind, generator)
    copy = folder / f"permuted_{seed}.xml"
    tree.write(copy)
    return copy


def _shuffle(parent: ElementTree.Element, kind: str, generator: np.random.Generator) -> None:
    """Deal the places that a parent's children of one kind have among them anew."""
    places = [place for place, child in enumerate(parent) if child.tag == kind]
    children = [parent[place] for place in places]
    for place, child in zip(places, generator.permutation(len(children)), strict=True):
        parent[place] = children[child]
