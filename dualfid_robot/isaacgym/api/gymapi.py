"""`isaacgym.gymapi`: its data types and constants, and `acquire_gym`."""

from __future__ import annotations

from typing import Any

from dualfid_robot.isaacgym.gym import GYM, Gym
from dualfid_robot.isaacgym.parameters import (
    ActuatorProperties,
    AssetOptions,
    AttractorProperties,
    CameraProperties,
    ContactCollection,
    DofDriveMode,
    FlexParams,
    ForceSensorProperties,
    HeightFieldParams,
    Mat33,
    PhysXParams,
    PlaneParams,
    RigidBodyProperties,
    RigidShapeProperties,
    SimParams,
    SimType,
    TriangleMeshParams,
    UpAxis,
    VhacdParams,
)
from dualfid_robot.isaacgym.session import not_provided
from dualfid_robot.isaacgym.transforms import Quat, Transform, Vec3

__all__ = [
    "ActuatorProperties",
    "AssetOptions",
    "AttractorProperties",
    "CameraProperties",
    "ContactCollection",
    "DofDriveMode",
    "FlexParams",
    "ForceSensorProperties",
    "Gym",
    "HeightFieldParams",
    "Mat33",
    "PhysXParams",
    "PlaneParams",
    "Quat",
    "RigidBodyProperties",
    "RigidShapeProperties",
    "SimParams",
    "SimType",
    "Transform",
    "TriangleMeshParams",
    "UpAxis",
    "Vec3",
    "VhacdParams",
    "acquire_gym",
]

SIM_PHYSX, SIM_FLEX = SimType.SIM_PHYSX, SimType.SIM_FLEX
UP_AXIS_Y, UP_AXIS_Z = UpAxis.UP_AXIS_Y, UpAxis.UP_AXIS_Z
DOF_MODE_NONE, DOF_MODE_POS = DofDriveMode.DOF_MODE_NONE, DofDriveMode.DOF_MODE_POS
DOF_MODE_VEL, DOF_MODE_EFFORT = DofDriveMode.DOF_MODE_VEL, DofDriveMode.DOF_MODE_EFFORT
CC_NEVER = ContactCollection.CC_NEVER
CC_LAST_SUBSTEP = ContactCollection.CC_LAST_SUBSTEP
CC_ALL_SUBSTEPS = ContactCollection.CC_ALL_SUBSTEPS

# Numbers below are names only: what takes them compares them with one another.
DOMAIN_ENV, DOMAIN_SIM, DOMAIN_ACTOR = 0, 1, 2
ENV_SPACE, GLOBAL_SPACE, LOCAL_SPACE = 0, 1, 2
MESH_NONE, MESH_COLLISION, MESH_VISUAL, MESH_VISUAL_AND_COLLISION = 0, 1, 2, 3
AXIS_NONE, AXIS_TRANSLATION, AXIS_ROTATION, AXIS_ALL = 0, 7, 56, 63
IMAGE_COLOR, IMAGE_DEPTH, IMAGE_SEGMENTATION, IMAGE_OPTICAL_FLOW = 0, 1, 2, 3
FOLLOW_POSITION, FOLLOW_TRANSFORM = 0, 1
STATE_NONE, STATE_POS, STATE_VEL, STATE_ALL = 0, 1, 2, 3
INVALID_HANDLE = -1
_KEYS = ("ESCAPE", "SPACE", "UP", "DOWN", "LEFT", "RIGHT", *"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
globals().update({f"KEY_{name}": number for number, name in enumerate(_KEYS)})


def acquire_gym() -> Gym:
    """The gym; there is one."""
    return GYM


def __getattr__(name: str) -> Any:
    raise not_provided(f"gymapi.{name}")
