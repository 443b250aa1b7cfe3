"""A Bullet world in this process, through the C interface that PyBullet's extension module exports.

PyBullet's Python functions copy two kilobytes of a joint's description whenever they set its torque or read its state.
They also make a Python object of every number. With hundreds of robots that is a third of a step. The interface is
Bullet's `PhysicsClientC_API.h`, the one under PyBullet's own functions. Names and arguments below are its.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Iterator, Sequence
from ctypes import byref, c_char_p, c_double, c_int, c_void_p, memmove, string_at

import numpy as np


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Without the banner that PyBullet writes to standard error when it is imported."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 2)
    yield
    os.dup2(kept, 2)
    os.close(kept)
    os.close(nowhere)


with _silent():
    import pybullet

CONTACT = np.dtype(
    [
        ("flags", "i4"),
        ("bodies", "i4", 2),
        ("links", "i4", 2),
        ("padding", "i4"),
        ("position_a", "f8", 3),
        ("position_b", "f8", 3),
        ("normal", "f8", 3),  # on B, towards A
        ("distance", "f8"),
        ("push", "f8"),
        ("slip", "f8", 2),
        ("across", "f8", (2, 3)),
    ]
)
"""Bullet's struct b3ContactPointData: of a contact between two bodies A and B, world frame, forces in N."""

_VELOCITY, _TORQUE = 0, 1  # control modes
_CHUNK = 4  # most degrees of freedom that one call can set
_JOINT_INFO_SIZE = 8192  # more than struct b3JointInfo has

_vectors = np.ctypeslib.ndpointer(np.float64, flags="C_CONTIGUOUS")


class _JointInfo(ctypes.Structure):
    _fields_ = (
        ("link", ctypes.c_char * 1024),
        ("joint", ctypes.c_char * 1024),
        ("type", c_int),
        ("q_index", c_int),
        ("u_index", c_int),
        ("rest", ctypes.c_char * _JOINT_INFO_SIZE),
    )


class _BodyInfo(ctypes.Structure):
    _fields_ = (("base", ctypes.c_char * 1024), ("body", ctypes.c_char * 1024))


class _ContactInformation(ctypes.Structure):
    _fields_ = (("count", c_int), ("points", c_void_p))


_library = ctypes.CDLL(pybullet.__file__)


def _function(name: str, result: type | None, *arguments: type) -> ctypes._NamedFuncPointer:
    function = getattr(_library, f"b3{name}")
    function.restype, function.argtypes = result, arguments
    return function


_submit = _function("SubmitClientCommandAndWaitStatus", c_void_p, c_void_p, c_void_p)
_connect = _function("ConnectPhysicsDirect", c_void_p)

_init_parameters = _function("InitPhysicsParamCommand", c_void_p, c_void_p)
_set_gravity = _function("PhysicsParamSetGravity", c_int, c_void_p, c_double, c_double, c_double)
_set_time_step = _function("PhysicsParamSetTimeStep", c_int, c_void_p, c_double)
_set_substeps = _function("PhysicsParamSetNumSubSteps", c_int, c_void_p, c_int)
_set_iterations = _function("PhysicsParamSetNumSolverIterations", c_int, c_void_p, c_int)
_set_threshold = _function("PhysicsParamSetSolverResidualThreshold", c_int, c_void_p, c_double)

_init_load = _function("LoadUrdfCommandInit", c_void_p, c_void_p, c_char_p)
_set_start = _function("LoadUrdfCommandSetStartPosition", c_int, c_void_p, c_double, c_double, c_double)
_set_fixed = _function("LoadUrdfCommandSetUseFixedBase", c_int, c_void_p, c_int)
_set_flags = _function("LoadUrdfCommandSetFlags", c_int, c_void_p, c_int)
_body_index = _function("GetStatusBodyIndex", c_int, c_void_p)
_init_remove = _function("InitRemoveBodyCommand", c_void_p, c_void_p, c_int)
_num_joints = _function("GetNumJoints", c_int, c_void_p, c_int)
_joint_info = _function("GetJointInfo", c_int, c_void_p, c_int, c_int, c_void_p)
_body_info = _function("GetBodyInfo", c_int, c_void_p, c_int, c_void_p)

_init_filter = _function("CollisionFilterCommandInit", c_void_p, c_void_p)
_set_filter = _function("SetCollisionFilterGroupMask", c_int, c_void_p, c_int, c_int, c_int, c_int)
_init_dynamics = _function("InitChangeDynamicsInfo", c_void_p, c_void_p)
_set_linear_damping = _function("ChangeDynamicsInfoSetLinearDamping", c_int, c_void_p, c_int, c_double)
_set_angular_damping = _function("ChangeDynamicsInfoSetAngularDamping", c_int, c_void_p, c_int, c_double)
_set_max_velocity = _function("ChangeDynamicsInfoSetMaxJointVelocity", c_int, c_void_p, c_int, c_double)
_set_joint_damping = _function("ChangeDynamicsInfoSetJointDamping", c_int, c_void_p, c_int, c_int, c_double)
_set_limits = _function("ChangeDynamicsInfoSetJointLimit", c_int, c_void_p, c_int, c_int, c_double, c_double)
_set_mass = _function("ChangeDynamicsInfoSetMass", c_int, c_void_p, c_int, c_int, c_double)
_set_inertia = _function("ChangeDynamicsInfoSetLocalInertiaDiagonal", c_int, c_void_p, c_int, c_int, _vectors)
_set_friction = _function("ChangeDynamicsInfoSetLateralFriction", c_int, c_void_p, c_int, c_int, c_double)
_set_stiffness = _function(
    "ChangeDynamicsInfoSetContactStiffnessAndDamping", c_int, c_void_p, c_int, c_int, c_double, c_double
)

_init_pose = _function("CreatePoseCommandInit", c_void_p, c_void_p, c_int)
_set_position = _function("CreatePoseCommandSetBasePosition", c_int, c_void_p, c_double, c_double, c_double)
_set_rotation = _function(
    "CreatePoseCommandSetBaseOrientation", c_int, c_void_p, c_double, c_double, c_double, c_double
)
_set_linear = _function("CreatePoseCommandSetBaseLinearVelocity", c_int, c_void_p, _vectors)
_set_angular = _function("CreatePoseCommandSetBaseAngularVelocity", c_int, c_void_p, _vectors)
_set_joint = _function("CreatePoseCommandSetJointPosition", c_int, c_void_p, c_void_p, c_int, c_double)
_set_joint_velocity = _function("CreatePoseCommandSetJointVelocity", c_int, c_void_p, c_void_p, c_int, c_double)

_init_control = _function("JointControlCommandInit2", c_void_p, c_void_p, c_int, c_int)
_set_torques = _function("JointControlSetDesiredForceTorqueMultiDof", c_int, c_void_p, c_int, c_void_p, c_int)
_set_max_force = _function("JointControlSetMaximumForce", c_int, c_void_p, c_int, c_double)
_set_target = _function("JointControlSetDesiredVelocity", c_int, c_void_p, c_int, c_double)
_set_gain = _function("JointControlSetKd", c_int, c_void_p, c_int, c_double)

_init_step = _function("InitStepSimulationCommand", c_void_p, c_void_p)
_init_state = _function("RequestActualStateCommandInit", c_void_p, c_void_p, c_int)
_get_state = _function("GetStatusActualState", c_int, *[c_void_p] * 8)
_init_contacts = _function("InitRequestContactPointInformation", c_void_p, c_void_p)
_filter_contacts = _function("SetContactFilterBodyA", None, c_void_p, c_int)
_get_contacts = _function("GetContactPointInformation", None, c_void_p, c_void_p)


class Bullet:
    """One Bullet world.

    Bodies are numbers; links are numbers, -1 the base. A body's state is q and u. q holds base position (3), quaternion
    (x, y, z, w) and joint positions. u holds base linear and angular velocity (world frame) and joint velocities.

    Attributes:
        substeps: physics steps of which each `step` consists.
    """

    def __init__(self, gravity: Sequence[float], period: float, substeps: int, iterations: int) -> None:
        """An empty world, which each `step` advances by a period."""
        self.substeps = substeps
        self._world = _connect()
        command = _init_parameters(self._world)
        _set_gravity(command, *gravity)
        _set_time_step(command, period)
        _set_substeps(command, substeps)
        _set_iterations(command, iterations)
        # Every iteration is done: an early end would depend on the other robots of the world.
        _set_threshold(command, 0.0)
        self._do(command)
        self._q, self._u, self._contacts = c_void_p(), c_void_p(), _ContactInformation()
        self._state = (None, None, None, None, byref(self._q), byref(self._u), None)

    def _do(self, command: int) -> int:
        return _submit(self._world, command)

    def load(self, path: str, position: Sequence[float], fixed: bool) -> int:
        """Add the body that a URDF file describes."""
        command = _init_load(self._world, path.encode())
        _set_start(command, *position)
        _set_fixed(command, fixed)
        _set_flags(command, pybullet.URDF_USE_INERTIA_FROM_FILE)
        body = _body_index(self._do(command))
        if body < 0:
            raise RuntimeError(f"Bullet cannot load {path}")
        return body

    def remove(self, body: int) -> None:
        self._do(_init_remove(self._world, body))

    def names(self, body: int) -> tuple[dict[str, int], dict[str, int]]:
        """Links by name, and those with a movable joint by the joint's name."""
        base, info = _BodyInfo(), _JointInfo()
        _body_info(self._world, body, byref(base))
        links, joints = {base.base.decode(): -1}, {}
        for link in range(_num_joints(self._world, body)):
            _joint_info(self._world, body, link, byref(info))
            links[info.link.decode()] = link
            joints[info.joint.decode()] = link
        return links, joints

    def filter_contacts(self, body: int, link: int, group: int, mask: int) -> None:
        """Let a link touch those whose group is in its mask, if its group is in theirs."""
        command = _init_filter(self._world)
        _set_filter(command, body, link, group, mask)
        self._do(command)

    def set_body(self, body: int, largest_velocity: float) -> None:
        """Take away Bullet's own damping and its bound on joint velocities."""
        command = _init_dynamics(self._world)
        _set_linear_damping(command, body, 0.0)
        _set_angular_damping(command, body, 0.0)
        _set_max_velocity(command, body, largest_velocity)
        self._do(command)

    def set_mass(self, body: int, link: int, mass: float) -> None:
        """Set a link's mass. Bullet then guesses moments of inertia from the link's shape, so set them afterwards."""
        command = _init_dynamics(self._world)
        _set_mass(command, body, link, mass)
        self._do(command)

    def set_inertia(self, body: int, link: int, moments: Sequence[float]) -> None:
        command = _init_dynamics(self._world)
        _set_inertia(command, body, link, np.array(moments))
        self._do(command)

    def set_joint(self, body: int, joint: int, damping: float) -> None:
        """Give a joint its damping and take away the motor that Bullet gives every joint to hold it."""
        command = _init_dynamics(self._world)
        _set_joint_damping(command, body, joint, damping)
        self._do(command)
        command, info = _init_control(self._world, body, _VELOCITY), _JointInfo()
        _joint_info(self._world, body, joint, byref(info))
        _set_target(command, info.u_index, 0.0)
        _set_gain(command, info.u_index, 0.0)
        _set_max_force(command, info.u_index, 0.0)
        self._do(command)

    def set_limits(self, body: int, joint: int, lower: float, upper: float) -> None:
        """Move the limits of a joint that has some."""
        command = _init_dynamics(self._world)
        _set_limits(command, body, joint, lower, upper)
        self._do(command)

    def set_friction(self, body: int, link: int, friction: float) -> None:
        command = _init_dynamics(self._world)
        _set_friction(command, body, link, friction)
        self._do(command)

    def set_contact(self, body: int, link: int, stiffness: float, damping: float) -> None:
        command = _init_dynamics(self._world)
        _set_stiffness(command, body, link, stiffness, damping)
        self._do(command)

    def put(self, body: int, q: list[float], u: list[float]) -> None:
        """Put a body into a state."""
        world = self._world
        command = _init_pose(world, body)
        _set_position(command, *q[:3])
        _set_rotation(command, *q[3:7])
        _submit(world, command)
        command = _init_pose(world, body)
        _set_linear(command, np.array(u[:3]))
        _set_angular(command, np.array(u[3:6]))
        _submit(world, command)
        command = _init_pose(world, body)
        for joint, (position, velocity) in enumerate(zip(q[7:], u[6:], strict=True)):
            _set_joint(world, command, joint, position)
            _set_joint_velocity(world, command, joint, velocity)
        _submit(world, command)

    def drive(self, body: int, torques: int, joints: int) -> None:
        """Set the torques of all joints for the next step. The torques are at an address."""
        world = self._world
        command = _init_control(world, body, _TORQUE)
        for joint in range(0, joints, _CHUNK):
            _set_torques(command, 6 + joint, torques + 8 * joint, min(_CHUNK, joints - joint))
        _submit(world, command)

    def step(self) -> None:
        """Advance the world by its period."""
        _submit(self._world, _init_step(self._world))

    def read(self, body: int, address: int, q_size: int, u_size: int) -> None:
        """Copy a body's state, q and then u, of so many bytes, to an address."""
        world = self._world
        _get_state(_submit(world, _init_state(world, body)), *self._state)
        memmove(address, self._q, q_size)
        memmove(address + q_size, self._u, u_size)

    def contacts(self, body: int) -> bytes:
        """Contacts between this body, as A, and others, as they acted in the last substep: an array of dtype CONTACT.

        Bullet divides their impulses by the period instead of the substep.
        """
        command = _init_contacts(self._world)
        _filter_contacts(command, body)
        _submit(self._world, command)
        found = self._contacts
        _get_contacts(self._world, byref(found))
        return string_at(found.points, found.count * CONTACT.itemsize)
