"""The process that steps a share of the PyBullet engine's worlds.

It imports no more than NumPy and PyBullet. Requests arrive on standard input: the pickled `Spec`, then four bytes a
step: the number n of active worlds. It answers each with one byte. Everything else is in shared memory. It ends when
its standard input is closed, so it cannot outlive its parent.

Worlds are grouped into Bullet clients of `robots_per_client` in world order; client k belongs to worker k % workers, so
that the first n worlds are spread over the workers for every n. Robots of one client stand on a grid and are filtered
so that they touch nothing but the ground.
"""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import sys
import tempfile
from collections.abc import Iterator

import numpy as np

from dualfid_robot.simulators import _shared_memory
from dualfid_robot.simulators._pybullet_protocol import CLEAN, RAW, Spec


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
    import pybullet as bullet

_GROUND, _ROBOT = 1, 2
_SPACING = 4.0  # m, between the robots of a client
_RETURN = 0.3  # part of its excess over a limit by which a joint goes back in a control period


class _Client:
    """One Bullet world with the robots of the worlds [first, first + count)."""

    def __init__(self, spec: Spec, first: int, count: int) -> None:
        self.spec, self.first, self.count = spec, first, count
        self.id = bullet.connect(bullet.DIRECT)
        self.offsets = np.zeros((count, 3))
        side = int(np.ceil(np.sqrt(count)))
        self.offsets[:, 0], self.offsets[:, 1] = np.arange(count) // side, np.arange(count) % side
        self.offsets *= _SPACING
        bullet.setGravity(*spec.gravity, physicsClientId=self.id)
        bullet.setPhysicsEngineParameter(
            fixedTimeStep=spec.control_dt, numSubSteps=spec.substeps, **spec.engine, physicsClientId=self.id
        )
        self.grounds = [self._add_plane(normal, offset) for normal, offset in spec.planes]
        self.base = 13 if spec.floating else 0  # where the joints begin in a raw state
        self.joints: list[int] = []
        self.contact_columns: dict[int, int] = {}
        self.robots = [self._add_robot(i) for i in range(count)]
        self.worlds = {robot: first + i for i, robot in enumerate(self.robots)}

    def _add_plane(self, normal: tuple[float, float, float], offset: float) -> int:
        shape = bullet.createCollisionShape(bullet.GEOM_PLANE, planeNormal=normal, physicsClientId=self.id)
        position = [offset * x for x in normal]
        plane = bullet.createMultiBody(0.0, shape, basePosition=position, physicsClientId=self.id)
        bullet.setCollisionFilterGroupMask(plane, -1, _GROUND, _ROBOT, physicsClientId=self.id)
        bullet.changeDynamics(plane, -1, lateralFriction=1.0, restitution=0.0, physicsClientId=self.id)
        return plane

    def _add_robot(self, index: int) -> int:
        spec, client = self.spec, self.id
        with tempfile.NamedTemporaryFile("w", suffix=".urdf") as file:
            file.write(spec.urdf)
            file.flush()
            robot = bullet.loadURDF(
                file.name,
                basePosition=self.offsets[index].tolist(),
                useFixedBase=not spec.floating,
                flags=bullet.URDF_USE_INERTIA_FROM_FILE,
                physicsClientId=client,
            )
        infos = [
            bullet.getJointInfo(robot, j, physicsClientId=client) for j in range(bullet.getNumJoints(robot, client))
        ]
        joints = {info[1].decode(): info[0] for info in infos}
        links = {bullet.getBodyInfo(robot, client)[0].decode(): -1} | {info[12].decode(): info[0] for info in infos}
        self.joints = [joints[name] for name in spec.joint_names]
        self.contact_columns = {links[name]: column for column, name in enumerate(spec.contact_links)}
        for link in range(-1, len(infos)):
            bullet.setCollisionFilterGroupMask(robot, link, _ROBOT, _GROUND, physicsClientId=client)
            bullet.changeDynamics(
                robot, link, linearDamping=0.0, angularDamping=0.0, maxJointVelocity=spec.bound, physicsClientId=client
            )
        for joint, damping in zip(self.joints, spec.joint_damping.tolist(), strict=True):
            bullet.changeDynamics(robot, joint, jointDamping=damping, physicsClientId=client)
        for name, moments in spec.inertia.items():
            bullet.changeDynamics(robot, links[name], localInertiaDiagonal=moments, physicsClientId=client)
        for name, friction in zip(spec.foot_links, spec.friction, strict=True):
            bullet.changeDynamics(
                robot,
                links[name],
                lateralFriction=friction,
                restitution=0.0,
                rollingFriction=0.0,
                spinningFriction=0.0,
                **spec.foot_dynamics,
                physicsClientId=client,
            )
        # Bullet gives every joint a motor that holds it.
        bullet.setJointMotorControlArray(
            robot, self.joints, bullet.VELOCITY_CONTROL, forces=[0.0] * len(self.joints), physicsClientId=client
        )
        return robot

    def rebuild(self, index: int) -> None:
        """Replace a robot whose state has spoiled Bullet's data."""
        bullet.removeBody(self.robots[index], physicsClientId=self.id)
        del self.worlds[self.robots[index]]
        self.robots[index] = self._add_robot(index)
        self.worlds[self.robots[index]] = self.first + index

    def put(self, index: int, raw: list[float]) -> None:
        """Put a robot into a raw state."""
        robot, client, base = self.robots[index], self.id, self.base
        if self.spec.floating:
            bullet.resetBasePositionAndOrientation(robot, raw[:3], raw[3:7], physicsClientId=client)
            bullet.resetBaseVelocity(robot, raw[7:10], raw[10:13], physicsClientId=client)
        bullet.resetJointStatesMultiDof(
            robot,
            self.joints,
            [[x] for x in raw[base::2]],
            [[x] for x in raw[base + 1 :: 2]],
            physicsClientId=client,
        )

    def step(self, torque: list[list[float]], raw: list[float], contacts: list[float]) -> None:
        """Advance the client; append the raw states of its first robots, as many as torques, and all contacts."""
        client, joints = self.id, self.joints
        for robot, forces in zip(self.robots, torque if joints else (), strict=False):
            bullet.setJointMotorControlArray(
                robot, joints, bullet.TORQUE_CONTROL, forces=forces, physicsClientId=client
            )
        bullet.stepSimulation(client)
        for robot, _ in zip(self.robots, torque, strict=False):
            if self.spec.floating:
                position, rotation = bullet.getBasePositionAndOrientation(robot, client)
                linear, angular = bullet.getBaseVelocity(robot, client)
                raw += position
                raw += rotation
                raw += linear
                raw += angular
            for joint_position, joint_velocity, _, _ in bullet.getJointStates(robot, joints, client) or ():
                raw.append(joint_position)
                raw.append(joint_velocity)
        if self.contact_columns:
            self._read_contacts(contacts)

    def _read_contacts(self, contacts: list[float]) -> None:
        columns, worlds = self.contact_columns, self.worlds
        for ground in self.grounds:
            for (
                *_, robot, _, link, _, position, normal, _, push, slip, across, slip_2, across_2
            ) in bullet.getContactPoints(ground, physicsClientId=self.id):  # fmt: skip
                if push > 0.0 and link in columns:
                    contacts += (worlds[robot], columns[link], push, slip, slip_2)
                    contacts += position
                    contacts += normal
                    contacts += across
                    contacts += across_2


class _Worker:
    """The clients of one worker, and its side of the shared arrays."""

    def __init__(self, spec: Spec, arrays: dict[str, np.ndarray]) -> None:
        self.spec, self.arrays = spec, arrays
        size = spec.robots_per_client
        firsts = range(spec.worker * size, spec.num_worlds, spec.workers * size)
        self.clients = [_Client(spec, first, min(size, spec.num_worlds - first)) for first in firsts]
        self.rows = np.concatenate([np.arange(c.first, c.first + c.count) for c in self.clients])
        self.offsets = np.concatenate([c.offsets for c in self.clients])

    def step(self, n: int) -> None:
        """Advance this worker's share of the first n worlds by one control period."""
        spec, arrays = self.spec, self.arrays
        active = int(np.searchsorted(self.rows, n))
        rows = self.rows[:active]
        ctrl = arrays["ctrl"][rows]
        failed = ~np.isfinite(ctrl).all(1)
        self._take_states(active, failed)
        ctrl[failed] = 0.0
        torque = np.clip(ctrl, spec.ctrl_range[:, 0], spec.ctrl_range[:, 1]) @ spec.torque
        torque = self._keep_limits(rows, torque).tolist()

        raw: list[float] = []
        contacts: list[float] = []
        for client, start, count in self._active_clients(active):
            client.step(torque[start : start + count], raw, contacts)
            idle = arrays["dirty"][client.first + count : client.first + client.count]
            idle[idle == CLEAN] = RAW
        self._give_states(active, np.fromiter(raw, float, len(raw)).reshape(active, arrays["raw"].shape[1]), failed)
        if spec.contact_links:
            self._give_contacts(rows, contacts)

    def _keep_limits(self, rows: np.ndarray, torque: np.ndarray) -> np.ndarray:
        """Torques (n, joints) that do not carry a joint over its limits within the control period.

        Bullet's own limits act only on a joint that is already over its limit, and so a step late: at full torque a
        light joint would swing across its limit by a third of a radian. So the torque is bounded such that the joint,
        by its own inertia, just reaches the limit at the end of the period, or goes back by a part of its excess.
        """
        spec, dt = self.spec, self.spec.control_dt
        qpos, qvel, joints = self.arrays["qpos"], self.arrays["qvel"], torque.shape[1]
        position, velocity = qpos[rows, qpos.shape[1] - joints :], qvel[rows, qvel.shape[1] - joints :]
        for limit, bound in ((spec.joint_limits[:, 1], np.minimum), (spec.joint_limits[:, 0], np.maximum)):
            gap = limit - position
            fastest = np.where(bound(gap, 0.0) == gap, _RETURN * gap, gap) / dt
            torque = bound(torque, (fastest - velocity) * spec.joint_inertia / dt)
        return torque

    def _active_clients(self, active: int) -> Iterator[tuple[_Client, int, int]]:
        start = 0
        for client in self.clients:
            if start >= active:
                return
            count = min(client.count, active - start)
            yield client, start, count
            start += count

    def _take_states(self, active: int, failed: np.ndarray) -> None:
        """Put robots into the states that the parent has written; a state that Bullet must not see is failed."""
        arrays, rows = self.arrays, self.rows[:active]
        dirty = np.flatnonzero(arrays["dirty"][rows])
        if not len(dirty):
            return
        worlds = rows[dirty]
        largest = np.maximum(np.abs(arrays["qpos"][worlds]).max(1), np.abs(arrays["qvel"][worlds]).max(1))
        bad = ~(largest < self.spec.bound)
        arrays["qpos"][worlds[bad]], arrays["qvel"][worlds[bad]] = self.spec.initial
        failed[dirty[bad]] = True
        raw = self._raw(arrays["qpos"][worlds], arrays["qvel"][worlds], self.offsets[dirty])
        exact = arrays["dirty"][worlds] == RAW
        raw[exact] = arrays["raw"][worlds[exact]]
        arrays["dirty"][worlds] = CLEAN
        size = self.spec.robots_per_client
        for index, state in zip(dirty.tolist(), raw.tolist(), strict=True):
            self.clients[index // size].put(index % size, state)

    def _give_states(self, active: int, raw: np.ndarray, failed: np.ndarray) -> None:
        arrays, rows, size = self.arrays, self.rows[:active], self.spec.robots_per_client
        spoiled = ~(np.abs(raw).max(1) < self.spec.bound)
        for index in np.flatnonzero(spoiled).tolist():
            self.clients[index // size].rebuild(index % size)
        arrays["raw"][rows] = raw
        arrays["failed"][rows] = failed | spoiled
        arrays["qpos"][rows], arrays["qvel"][rows] = self._generalized(raw, self.offsets[:active])

    def _give_contacts(self, rows: np.ndarray, contacts: list[float]) -> None:
        """Sum contact forces and their torques about the root body's origin."""
        wrench = self.arrays["contact_wrench"]
        wrench[rows] = 0.0
        if not contacts:
            return
        table = np.fromiter(contacts, float, len(contacts)).reshape(-1, 17)
        table = table[table[:, 0] <= rows[-1]]  # without the idle robots of a partly active client
        world, column = table[:, 0].astype(np.int64), table[:, 1].astype(np.int64)
        push, slip, slip_2 = table[:, 2:3], table[:, 3:4], table[:, 4:5]
        position, normal, across, across_2 = np.split(table[:, 5:], 4, axis=1)
        # Bullet divides impulses by the control period instead of the substep in which they acted.
        force = (slip * across + slip_2 * across_2 - push * normal) * self.spec.substeps
        arm = position - self.offsets[np.searchsorted(self.rows, world)]
        if self.spec.floating:
            arm -= self.arrays["qpos"][world, :3]
        np.add.at(wrench, (world, column), np.concatenate([force, np.cross(arm, force)], 1))

    def _raw(self, qpos: np.ndarray, qvel: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Bullet's state: of a floating base position, quaternion (x, y, z, w), linear and angular velocity (world
        frame); then position and velocity of each joint."""
        joints = len(self.spec.joint_names)
        position, velocity = qpos[:, qpos.shape[1] - joints :] - self.spec.joint_zero, qvel[:, qvel.shape[1] - joints :]
        parts = [np.stack([position, velocity], 2).reshape(len(qpos), 2 * joints)]
        if self.spec.floating:
            rotation = _matrices(qpos[:, 3:7])
            arm = rotation @ self.spec.root_offset
            omega = np.einsum("nij,nj->ni", rotation, qvel[:, 3:6])
            quat = _product(qpos[:, 3:7], self.spec.root_rotation)
            linear = qvel[:, :3] + np.cross(omega, arm)
            parts = [qpos[:, :3] + arm + offsets, np.roll(quat, -1, axis=1), linear, omega, *parts]
        return np.concatenate(parts, 1)

    def _generalized(self, raw: np.ndarray, offsets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `_raw`."""
        base = raw.shape[1] - 2 * len(self.spec.joint_names)
        position, velocity = raw[:, base::2] + self.spec.joint_zero, raw[:, base + 1 :: 2]
        if not self.spec.floating:
            return position, velocity
        quat = _product(np.roll(raw[:, 3:7], 1, axis=1), self.spec.root_rotation * (1.0, -1.0, -1.0, -1.0))
        rotation = _matrices(quat)
        arm = rotation @ self.spec.root_offset
        omega = raw[:, 10:13]
        linear = raw[:, 7:10] - np.cross(omega, arm)
        body_omega = np.einsum("nij,ni->nj", rotation, omega)
        return (
            np.concatenate([raw[:, :3] - arm - offsets, quat, position], 1),
            np.concatenate([linear, body_omega, velocity], 1),
        )


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Hamilton product of quaternions (n, 4) and (4,), (w, x, y, z)."""
    w, x, y, z = b
    right = np.array([[w, x, y, z], [-x, w, -z, y], [-y, z, w, -x], [-z, -y, x, w]])
    return a @ right


def _matrices(quat: np.ndarray) -> np.ndarray:
    """Rotation matrices (n, 3, 3) of unit quaternions (n, 4), (w, x, y, z)."""
    w, x, y, z = quat.T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, -1) for row in rows], -2)


def main(memory: int, answer: int) -> None:
    """Serve until standard input is closed.

    Args:
        memory: descriptor of the shared arrays.
        answer: descriptor to which one byte is written when the worker is ready, and after each step.
    """
    gc.disable()  # nothing here makes cycles, and a collection in the step loop costs as much as a robot's step
    spec = pickle.load(sys.stdin.buffer)
    worker = _Worker(spec, _shared_memory.attach(memory, spec.layout))
    os.write(answer, b"r")
    while request := os.read(0, 4):
        worker.step(int.from_bytes(request, "little"))
        os.write(answer, b"s")
