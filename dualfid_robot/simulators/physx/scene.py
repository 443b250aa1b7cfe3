"""A PhysX scene with one robot in it, and the masses of its links. It imports neither torch nor MuJoCo."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from dualfid_robot.simulators.physx.protocol import Joint, Part, Pose, Shape, Spec

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # of renderers, which are not used
    import sapien
    from sapien import physx

sapien.set_log_level("off")

_OTHER, _GROUND = -1, -2  # in place of a column, for shapes that have none in the table of contacts
_NO_LIMIT = 1e6  # on velocities, which PhysX bounds by default and MuJoCo does not


@dataclass(frozen=True)
class Mass:
    """Mass of a link (kg) and centre of mass (3,) in its frame.

    The principal moments (3,) have their axes as a quaternion.
    """

    mass: float
    centre: np.ndarray
    moments: np.ndarray
    axes: np.ndarray


@dataclass(frozen=True)
class JointChanges:
    """How a world's joints differ from the asset's.

    Attributes:
        damping, stiffness: (joints,) factors.
        limits: (joints, 2) how far they move, rad or m.
    """

    damping: np.ndarray
    stiffness: np.ndarray
    limits: np.ndarray


def combine(parts: tuple[Part, ...], factors: np.ndarray, offsets: np.ndarray) -> Mass:
    """The mass of a link.

    Args:
        factors: (bodies,) on the masses and inertias of the asset's bodies.
        offsets: (bodies, 3) of their centres of mass, in the bodies' frames, m.
    """
    parts = tuple(
        part if part.body is None else replace(part, centre=part.centre + part.axes @ offsets[part.body])
        for part in parts
    )
    scales = [1.0 if part.body is None else float(factors[part.body]) for part in parts]
    mass = sum(scale * part.mass for scale, part in zip(scales, parts, strict=True))
    moment = sum((scale * part.mass * part.centre for scale, part in zip(scales, parts, strict=True)), np.zeros(3))
    centre = moment / mass
    inertia = np.zeros((3, 3))
    for scale, part in zip(scales, parts, strict=True):
        arm = part.centre - centre
        inertia += scale * (part.inertia + part.mass * (arm @ arm * np.eye(3) - np.outer(arm, arm)))
    moments, axes = np.linalg.eigh(inertia)
    axes[:, 0] *= np.linalg.det(axes)
    return Mass(mass, centre, moments, _quaternion(axes))


class World:
    """A PhysX scene with one robot.

    Attributes:
        order: where PhysX has the joints of `RobotModel.joint_names`.
        masses: of the links.
        links: the links, as SAPIEN's components.
        columns: by shape: the column of the contact table that takes its contacts, or `_GROUND`.
    """

    def __init__(
        self,
        spec: Spec,
        masses: list[Mass],
        friction: float,
        joints: JointChanges,
        gravity: np.ndarray,
    ) -> None:
        """Build the scene.

        Args:
            masses: of the links.
            friction: factor on the asset's.
            joints: what differs from the asset's joints.
            gravity: m/s^2.
        """
        physx.set_scene_config(
            gravity=gravity.tolist(),
            enable_tgs=spec.solver == "tgs",
            enable_pcm=True,
            enable_friction_every_iteration=True,
            cpu_workers=0,
        )
        self.spec = spec
        self.system = physx.PhysxCpuSystem()
        self.system.timestep = spec.control_dt / spec.substeps
        self.scene = sapien.Scene([self.system])
        self.masses, self.friction, self.joints = masses, friction, joints
        self.columns: dict[Any, int] = {}
        self._add_ground()
        self.links = self._add_robot()
        self.robot = self.links[0].articulation
        children = [link for link in self.links if link.joint.type in ("revolute_unwrapped", "prismatic")]
        places = {joint: place for place, joint in enumerate(self.robot.active_joints)}
        self.order = np.array([places[link.joint] for link in children], np.int64)
        self.measured = [self.links[number] for number in spec.contact_links]

    def _add_ground(self) -> None:
        entity, body = sapien.Entity(), physx.PhysxRigidStaticComponent()
        for shape in self.spec.articulation.ground:
            made = self._shape(shape)
            body.attach(made)
            self.columns[made] = _GROUND
        entity.add_component(body)
        self.scene.add_entity(entity)

    def _add_robot(self) -> list[Any]:
        spec, links, entities = self.spec, list[Any](), []
        table = {place: column for column, place in enumerate(spec.contact_table)}
        for number, (link, mass) in enumerate(zip(spec.articulation.links, self.masses, strict=True)):
            component = physx.PhysxArticulationLinkComponent(None if link.parent is None else links[link.parent])
            entity = sapien.Entity()
            entity.add_component(component)
            for shape in link.shapes:
                made = self._shape(shape)
                component.attach(made)
                if (number, shape.body) in table:
                    self.columns[made] = table[number, shape.body]
            component.mass, component.inertia = mass.mass, mass.moments
            component.cmass_local_pose = sapien.Pose(mass.centre, mass.axes)
            component.linear_damping = component.angular_damping = 0.0
            component.max_linear_velocity = component.max_angular_velocity = _NO_LIMIT
            component.max_depenetration_velocity = spec.max_depenetration_velocity
            if link.joint is None:
                component.joint.type = "free" if spec.articulation.floating else "fixed"
            else:
                self._set_joint(component.joint, link.joint, number - 1)
            links.append(component)
            entities.append(entity)
        robot = links[0].articulation
        robot.solver_position_iterations = spec.position_iterations
        robot.solver_velocity_iterations = spec.velocity_iterations
        robot.sleep_threshold = 0.0  # MuJoCo's robots never sleep, and PhysX does not report a sleeping one's contacts
        for entity in entities:
            self.scene.add_entity(entity)
        return links

    def _set_joint(self, joint: Any, given: Joint, number: int) -> None:
        joint.type = given.kind
        joint.pose_in_parent, joint.pose_in_child = _pose(given.in_parent), _pose(given.in_child)
        joint.limits = [np.array(given.limits) + self.joints.limits[number]]
        joint.armature = [given.armature]
        joint.friction = 0.0
        joint.max_velocity = _NO_LIMIT
        # PhysX's drive is a spring and a damper, treated implicitly, as MuJoCo's implicit integrators treat damping.
        stiffness, damping = self.joints.stiffness[number], self.joints.damping[number]
        joint.set_drive_properties(stiffness * given.stiffness, damping * given.damping)
        joint.set_drive_target(given.rest)

    def _shape(self, shape: Shape) -> Any:
        friction = self.friction * shape.friction
        material = physx.PhysxMaterial(friction, friction, 0.0)
        if shape.kind == "plane":
            made = physx.PhysxCollisionShapePlane(material)
        elif shape.kind == "sphere":
            made = physx.PhysxCollisionShapeSphere(shape.size[0], material)
        elif shape.kind == "capsule":
            made = physx.PhysxCollisionShapeCapsule(*shape.size, material)
        else:
            made = physx.PhysxCollisionShapeBox(shape.size, material)
        made.local_pose = _pose(shape.pose)
        made.set_collision_groups(list(shape.groups))
        made.contact_offset, made.rest_offset = shape.contact_offset, shape.rest_offset
        return made

    def put(self, raw: np.ndarray) -> None:
        """Put the robot into a state (see `read`), without contact caches and warm starts.

        It leaves the scene and comes back, after which it moves to the bit as in a new one.
        """
        entities = [link.entity for link in self.links]
        for entity in entities:
            self.scene.remove_entity(entity)
        for entity in entities:
            self.scene.add_entity(entity)
        joints, robot = len(self.order), self.robot
        if self.spec.articulation.floating:
            robot.set_root_pose(sapien.Pose(raw[:3], raw[3:7]))
            robot.set_root_linear_velocity(raw[7:10])
            robot.set_root_angular_velocity(raw[10:13])
        robot.set_qpos(raw[13 : 13 + joints])
        robot.set_qvel(raw[13 + joints :])

    def read(self, raw: np.ndarray) -> None:
        """Take the state.

        Args:
            raw: takes the root's position and quaternion (w, x, y, z) in the world frame. The velocity of its centre of
                mass and its angular velocity follow, in the world frame too. The joints' positions and velocities are
                last, in PhysX's order.
        """
        joints, robot = len(self.order), self.robot
        if self.spec.articulation.floating:
            pose = robot.root_pose
            raw[:3], raw[3:7] = pose.p, pose.q
            raw[7:10], raw[10:13] = robot.root_linear_velocity, robot.root_angular_velocity
        raw[13 : 13 + joints], raw[13 + joints :] = robot.qpos, robot.qvel

    def velocities(self) -> list[np.ndarray]:
        """Velocities of the measured links' centres of mass, world frame, (contact_links, 3)."""
        return [link.linear_velocity for link in self.measured]

    def turns(self, numbers: Iterable[int]) -> list[np.ndarray]:
        """Quaternions (w, x, y, z) of some links, (k, 4)."""
        return [self.links[number].entity_pose.q for number in numbers]

    def contacts(self) -> list[tuple[int, bool, float, np.ndarray, np.ndarray]]:
        """Contact points of the last physics step.

        Returns:
            Each has the column of the contact table, and whether the other body is the ground. The sign with which
            the impulse acts on the column's body follows, then the impulse along the contact's normal. The position is
            last, world frame.
        """
        found = []
        for contact in self.system.get_contacts():
            shapes = contact.shapes
            columns = [self.columns.get(shape, _OTHER) for shape in shapes]
            if max(columns) >= 0:
                points = [(point.impulse, point.position) for point in contact.points]
                for column, sign in zip(columns, (1.0, -1.0), strict=True):
                    if column >= 0:
                        found += [(column, _GROUND in columns, sign, *point) for point in points]
        return found


def _pose(pose: Pose) -> Any:
    return sapien.Pose(pose.position, pose.quaternion)


def _quaternion(matrix: np.ndarray) -> np.ndarray:
    """Unit quaternion (w, x, y, z) of a rotation matrix: the eigenvector of Bar-Itzhack's symmetric matrix."""
    m = matrix
    k = np.array(
        [
            [m[0, 0] + m[1, 1] + m[2, 2], m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1]],
            [0.0, m[0, 0] - m[1, 1] - m[2, 2], m[0, 1] + m[1, 0], m[0, 2] + m[2, 0]],
            [0.0, 0.0, m[1, 1] - m[0, 0] - m[2, 2], m[1, 2] + m[2, 1]],
            [0.0, 0.0, 0.0, m[2, 2] - m[0, 0] - m[1, 1]],
        ]
    )
    return np.linalg.eigh(k, UPLO="U")[1][:, -1]
